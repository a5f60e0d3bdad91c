// The model: a few numbers beside the image, all facts and the model card in a dialogue, a banner for phantom models.

import type { Model } from "./core/modelFile";
import { element, list, number, show, words } from "./page";

export function present(model: Model): void {
  const rows = facts(model);
  list("model-numbers", rows.filter(([name]) => BRIEF.has(name)));
  list("card-facts", rows);
  if (phantom(model)) banner();
  void write(model.card_markdown ?? "");
}

/** The prose of the card. What turns it into markup comes after the page can be used. */
async function write(markdown: string): Promise<void> {
  const [{ marked }, { default: DOMPurify }] = await Promise.all([import("marked"), import("dompurify")]);
  const text = marked.parse(markdown, { async: false });
  // The card comes from our own server, yet it quotes metrics and names: only plain markup of it is kept.
  element("card-text").replaceChildren(
    DOMPurify.sanitize(text, { RETURN_DOM_FRAGMENT: true, FORBID_TAGS: ["style", "form", "input", "img"], FORBID_ATTR: ["style", "id"] }),
  );
  element("card-text").querySelector("h1")?.remove(); // the dialogue has a title
  element("card-text").querySelectorAll("a").forEach(outside);
  element("card-text").querySelectorAll("table").forEach((table, n) => {
    const scroll = words("div", "", "scroll");
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", `Table ${n + 1}`);
    table.replaceWith(scroll);
    scroll.append(table);
  });
}

/** The card lives in the repository: what it links to there is not served here. */
function outside(link: HTMLAnchorElement): void {
  if (!/^https?:/.test(link.getAttribute("href") ?? "")) return link.replaceWith(...link.childNodes);
  link.target = "_blank";
  link.rel = "noopener noreferrer";
}

export function missing(): void {
  list("model-numbers", [["Model", "not known"]]);
}

export function phantom(model: Model): boolean {
  const told = [model.source, model.protocol?.source, ...(model.marks ?? [])];
  return told.some((text) => typeof text === "string" && /phantom/i.test(text));
}

function banner(): void {
  const box = element("banner");
  const command = (text: string) => words("code", text);
  const text = document.createElement("p");
  text.append(
    words("strong", "This model has only ever seen drawn phantoms."),
    " It answers the phantom examples alone; of real scans it knows nothing. For the real model, stop the server and type ",
    command("make pull"), ", then ", command("make serve"), ".",
  ); // prettier-ignore
  box.replaceChildren(text);
  show("banner", true);
}

const OUT_OF_FOLD = "Scored out of fold"; // a network that was trained on all patients has the numbers of its recipe
const BRIEF = new Set(["Volume Dice, mean", "Volume Dice, median", "Tested on", OUT_OF_FOLD, "Weights"]);

function facts(model: Model): [string, string, string?][] {
  const rows: [string, string, string?][] = [];
  const numbers = flat(model.numbers ?? {});
  const get = (name: string) => numbers.find(([key]) => key.endsWith(name))?.[1];
  const [mean, lo, hi, median] = ["dice.mean", "dice.lo", "dice.hi", "dice.median"].map(get);
  const count = (subset: string) => flat(model.protocol ?? {}).find(([key]) => key.endsWith(`patients.${subset}`))?.[1];
  const patients = count("test");
  const range = lo !== undefined && hi !== undefined ? `[${score(lo)}, ${score(hi)}]` : "";
  if (mean !== undefined) rows.push(["Volume Dice, mean", score(mean), range]);
  if (median !== undefined) rows.push(["Volume Dice, median", score(median)]);
  if (patients !== undefined) rows.push([count("val") === 0 ? OUT_OF_FOLD : "Tested on", `${String(patients)} patients`]);
  for (const [name, value] of Object.entries(model.protocol ?? {})) {
    if (plain(value)) rows.push([title(name), String(value)]);
    else if (value !== null && typeof value === "object" && !Array.isArray(value)) {
      rows.push([title(name), flat(value as Record<string, unknown>).filter(([, inner]) => plain(inner)).map(([key, inner]) => `${inner} ${key}`).join(", ")]);
    }
  }
  if (model.variant) rows.push(["Variant", model.variant]);
  for (const mark of model.marks ?? []) rows.push(["Note", mark]);
  if (model.weights_sha256) rows.push(["Weights", model.weights_sha256.slice(0, 12), "sha256"]);
  return rows;
}

/** Nested numbers as dotted names, so that dice.mean is found however deep the server keeps it. */
function flat(value: Record<string, unknown>, before = ""): [string, unknown][] {
  return Object.entries(value).flatMap(([name, inner]) =>
    inner !== null && typeof inner === "object" && !Array.isArray(inner)
      ? flat(inner as Record<string, unknown>, `${before}${name}.`)
      : [[before + name, inner] as [string, unknown]],
  );
}

function score(value: unknown): string {
  return typeof value === "number" ? number(value, 3) : String(value);
}

function plain(value: unknown): boolean {
  return ["string", "number", "boolean"].includes(typeof value);
}

function title(name: string): string {
  const text = name.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

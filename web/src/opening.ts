// The ways in: files and folders chosen or dropped, sequences assigned, examples.

import * as api from "./api";
import * as batch from "./batch";
import type { Role } from "./core/cases";
import { discover, nameOf, type Item } from "./core/discover";
import * as intake from "./intake";
import * as judge from "./judge";
import { click, element, input, show, words } from "./page";
import { close, open, refuse } from "./session";
import { state } from "./state";

export function start(): void {
  click("choose", () => input("files").click());
  click("another", () => input("files").click());
  click("choose-folder", () => input("folder").click());
  click("close", close);
  for (const id of ["files", "folder"]) {
    input(id).addEventListener("change", () => {
      const items = intake.chosen(input(id).files);
      input(id).value = ""; // so that the same file can be chosen again
      if (items.length) void openItems(items);
    });
  }
  click("show-sequences", () => assign({}));
  element("sequences-form").addEventListener("submit", (event) => {
    event.preventDefault();
    element<HTMLDialogElement>("sequences").close();
    assigned();
  });
  drops();
}

/** One case is opened, several become a list; up to three volumes are asked for. */
async function openItems(items: Item[]): Promise<void> {
  try {
    const chosen = intake.given(items);
    if ("assign" in chosen) return assign(chosen.assign);
    const { groups } = state.engine?.where === "here" ? await discover(items) : { groups: [] };
    if (groups.length > 1) await batch.add(groups);
    else void open(() => chosen, chosen.name);
  } catch (error) {
    refuse(error);
  }
}

function assign(found: Partial<Record<Role, Item>>): void {
  element<HTMLFormElement>("sequences-form").reset();
  for (const [role, item] of Object.entries(found)) {
    const list = new DataTransfer();
    list.items.add(item.blob instanceof File ? item.blob : new File([item.blob], nameOf(item)));
    input(`part-${role}`).files = list.files;
  }
  const dialog = element<HTMLDialogElement>("sequences");
  if (!dialog.open) dialog.showModal();
}

function assigned(): void {
  const parts = (["flair", "pre", "post"] as const).flatMap((role) => {
    const blob = input(`part-${role}`).files?.[0];
    return blob ? [{ role, item: { path: blob.name, blob } }] : [];
  });
  const name = nameOf(parts[0]!.item) + (parts.length > 1 ? ` and ${parts.length - 1} more` : "");
  void open(() => ({ name, parts, choice: {} }), name);
}

function drops(): void {
  let inside = 0;
  const files = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
  const field = (event: DragEvent) => (event.target as Element).closest?.("input[type=file]"); // takes it by itself
  const veil = (by: number) => show("veil", (inside = Math.max(0, inside + by)) > 0);
  addEventListener("dragenter", (event) => files(event) && veil(1));
  addEventListener("dragleave", (event) => files(event) && veil(-1));
  addEventListener("dragover", (event) => field(event) || event.preventDefault());
  addEventListener("drop", (event) => {
    inside = 0;
    show("veil", false);
    if (field(event)) return;
    event.preventDefault();
    if (!event.dataTransfer || !files(event)) return;
    document.querySelectorAll("dialog").forEach((dialog) => dialog.close());
    const target = event.target as Element;
    const take = (items: Item[]) => (judge.isForUs(items, target) ? void judge.compare(items) : void openItems(items));
    intake.dropped(event.dataTransfer).then(take, refuse);
  });
}

function link(address: string, text: string): HTMLElement {
  const made = words("a", text) as HTMLAnchorElement;
  Object.assign(made, { href: address, target: "_blank", rel: "noopener noreferrer" });
  return made;
}

/** What there is to try; nothing where a site was built without. */
export async function listExamples(): Promise<void> {
  const found = await api.examples();
  const buttons = found.map((chosen) => {
    const item = document.createElement("li");
    const button = words("button", chosen.title) as HTMLButtonElement;
    button.type = "button";
    if (chosen.note) button.append(words("small", chosen.note));
    button.addEventListener("click", () => {
      const find = async (signal: AbortSignal) => {
        const blob = await api.example(chosen, signal);
        const credit = chosen.attribution ? { credit: chosen.attribution } : {};
        return { name: chosen.title, parts: [{ role: "file" as const, item: { path: blob.name, blob } }], choice: {}, ...credit };
      };
      void open(find, chosen.title);
    });
    item.append(button);
    return item;
  });
  element("examples").querySelector("ul")!.replaceChildren(...buttons);
  const owned = found.find(({ attribution }) => attribution);
  element("examples-credit").textContent = owned?.attribution ?? "";
  if (owned?.licence) element("examples-credit").append(" ", link(owned.licence, "The licence"));
  show("examples", found.length > 0);
}

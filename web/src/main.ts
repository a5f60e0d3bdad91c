// Wires the page: what is opened, the one request under way, and the controls.

import * as api from "./api";
import { area, Bars, stepped } from "./bars";
import * as card from "./card";
import { listen } from "./gestures";
import * as intake from "./intake";
import * as lesions from "./lesions";
import * as nifti from "./nifti";
import { announce, element, sentence, show, words } from "./page";
import * as results from "./results";
import * as rule from "./rule";
import * as theme from "./theme";
import { Viewer, type Fill } from "./viewer";

const CHANNELS = ["pre-contrast", "FLAIR", "post-contrast"];
const FULL = { centre: 127.5, width: 255 };

/** The answer on the page and what it was made from; null while there is none. */
let shown: { given: api.Given; answer: api.Answer } | null = null;
/** Ends the request under way; also the token that tells a stale answer from the wanted one. */
let running: AbortController | null = null;
let viewer: Viewer | null = null;
let current = 1; // the slice on the page, from 1
const bars = new Bars(go);

const input = (id: string) => element<HTMLInputElement>(id);

/** Clear the last result at once, ask for another one, and show it only if nothing else was opened meanwhile. */
async function open(find: (signal: AbortSignal) => Promise<api.Given> | api.Given, name: string): Promise<void> {
  clear();
  const mine = (running = new AbortController());
  const wanted = () => running === mine;
  state("waiting");
  const clock = ticking(name);
  try {
    const given = await find(mine.signal);
    const answer = await api.segment(given, mine.signal);
    const { image, mask, probability } = answer.volumes;
    const volumes = await Promise.all([image, mask, probability].map(nifti.read));
    if (!wanted()) return;
    answer.volumes = { image: "", mask: "", probability: "" }; // read, and large
    state("result");
    await draw(volumes[0]!, volumes[1]!, volumes[2]!, answer, wanted);
    if (!wanted()) return;
    shown = { given, answer };
    running = null;
    present(given.name, answer, volumes[0]!.channels);
  } catch (error) {
    if (!wanted()) return;
    running = null;
    clear();
    refuse(error, () => void open(find, name), name);
    (document.querySelector<HTMLElement>("#refusal button") ?? element("choose")).focus();
  } finally {
    clearInterval(clock);
  }
}

/** Where the image cannot be shown, its numbers still can. */
async function draw(image: nifti.Volume, mask: nifti.Volume, chance: nifti.Volume, answer: api.Answer, wanted: () => boolean): Promise<void> {
  document.body.dataset.viewer = viewer ? "webgl" : "none";
  try {
    await viewer?.show(image, mask, chance, wanted);
  } catch (error) {
    if (!wanted()) return; // the stage is another file's by now
    document.body.dataset.viewer = "none";
    answer.warnings.push(`the image cannot be shown here: ${error instanceof Error ? error.message : error}`);
  }
}

function clear(): void {
  running?.abort();
  running = null;
  shown = null;
  viewer?.clear();
  results.warn([]);
  element("refusal").replaceChildren();
  element("download-note").textContent = "";
  for (const id of ["verdict", "name", "file-name", "file-facts", "corner-slice"]) element(id).textContent = "";
  element("numbers").replaceChildren();
  bars.show([]);
  announce("");
  state("empty");
  scrollTo(0, 0);
}

function state(name: "empty" | "waiting" | "result"): void {
  document.body.dataset.state = name;
  show("open", name === "empty");
  show("waiting", name === "waiting");
  for (const id of ["stage", "results", "display", "advanced", "downloads"]) show(id, name === "result");
  show("strip", false);
}

function present(name: string, answer: api.Answer, channels: number): void {
  const known = answer.input.orientation === "known";
  results.warn(answer.warnings);
  results.present(answer, name);
  lesions.present(answer.lesions, answer.input.slices, go);
  rule.present(answer);
  show("strip", answer.input.slices > 1);
  bars.show(answer.slices);
  input("slice").max = String(answer.input.slices);
  const select = element<HTMLSelectElement>("channel");
  select.replaceChildren(...CHANNELS.map((channel) => words("option", channel)));
  select.selectedIndex = 1;
  show("channel-row", channels === 3);
  element<HTMLFieldSetElement>("convention").disabled = !known;
  if (viewer) viewer.spaced = answer.input.spacing_mm !== null;
  go(answer.summary.largest_slice ?? Math.ceil(answer.input.slices / 2));
  setWindow(FULL.centre, FULL.width);
  takeDisplay();
  const seen = document.body.dataset.viewer !== "none";
  element(seen ? "stage" : "verdict").focus({ preventScroll: seen });
}

/** The server calls what was sent by the part's name and never by the file's, which may say who somebody is. */
function refuse(error: unknown, again: () => void, name = ""): void {
  const told = error instanceof api.Refusal ? error : new api.Refusal("The page could not show this", `${error}`);
  const box = element("refusal");
  box.replaceChildren(words("strong", sentence(name ? told.what.replace(/^file(?=: )/, () => name) : told.what)), words("p", sentence(told.fix)));
  if (told.again) {
    const button = words("button", "Try again");
    button.addEventListener("click", again);
    box.append(button);
  }
  if (!(error instanceof api.Refusal)) console.error(error);
}

function ticking(name: string): ReturnType<typeof setInterval> {
  const begun = performance.now();
  const tick = () => {
    const seconds = Math.floor((performance.now() - begun) / 1000);
    document.querySelector(".waiting-what")!.textContent = seconds < 1 ? "Outlining…" : `Outlining… ${seconds} s`;
  };
  document.querySelector(".waiting-name")!.textContent = name;
  tick();
  announce("Outlining");
  return setInterval(tick, 250);
}

function openFiles(files: File[]): void {
  try {
    const chosen = intake.given(files);
    if ("assign" in chosen) assign(chosen.assign);
    else void open(() => chosen, chosen.name);
  } catch (error) {
    clear();
    refuse(error, () => undefined);
  }
}

// -- the slice ------------------------------------------------------------------------------------------------------

function slices(): number {
  return shown?.answer.input.slices ?? 0;
}

function go(wanted: number): void {
  if (!shown) return;
  const slice = (current = Math.min(slices(), Math.max(1, wanted)));
  const facts = shown.answer.slices[slice - 1]!;
  viewer?.go(slice);
  bars.at(slice);
  lesions.at(slice);
  const slider = input("slice");
  slider.value = String(slice);
  slider.setAttribute("aria-valuetext", `Slice ${slice} of ${slices()}, ${area(facts)}`);
  const place = slices() > 1 ? [words("b", `${slice} / ${slices()}`)] : [];
  element("corner-slice").replaceChildren(...place, words("span", area(facts)));
  describe();
}

function describe(): void {
  if (shown) element("stage").setAttribute("aria-label", results.described(shown.answer.slices[current - 1]!, slices(), sides()));
}

/** The next slice with tumour in a direction; stays where there is none. */
function tumour(direction: 1 | -1): void {
  for (let slice = current + direction; slice >= 1 && slice <= slices(); slice += direction) {
    if (shown!.answer.slices[slice - 1]!.pixels) return go(slice);
  }
}

function largest(): void {
  if (shown?.answer.summary.largest_slice) go(shown.answer.summary.largest_slice);
}

// -- how it is shown ------------------------------------------------------------------------------------------------

function checked(name: string): string {
  return document.querySelector<HTMLInputElement>(`input[name=${name}]:checked`)!.value;
}

function takeDisplay(): void {
  const fill = checked("fill") as Fill;
  element("opacity-value").textContent = `${input("opacity").value} %`;
  show("legend", fill === "probability");
  takeSides();
  if (!viewer) return;
  viewer.fill = fill;
  viewer.opacity = Number(input("opacity").value) / 100;
  viewer.outlined = input("outline").checked;
  viewer.overlay();
}

function sides(): string {
  if (shown?.answer.input.orientation !== "known") return "Orientation unknown.";
  return checked("side") === "radiological" ? "Radiological convention." : "Neurological convention.";
}

/** The letters are written for known orientation alone; a lone picture says nothing of sides. */
function takeSides(): void {
  const known = shown?.answer.input.orientation === "known";
  const radiological = !known || checked("side") === "radiological";
  viewer?.radiological(radiological);
  const letters = !known ? ["", "", "", ""] : radiological ? ["R", "L", "A", "P"] : ["L", "R", "A", "P"];
  [".left", ".right", ".top", ".bottom"].forEach((place, i) => {
    document.querySelector(`.marks ${place}`)!.textContent = letters[i]!;
  });
  element("corner-side").textContent = known ? (radiological ? "Radiological" : "Neurological") : "Orientation unknown";
  element("orientation").textContent = !known
    ? "Orientation unknown: shown as the file has it, sides are not marked."
    : radiological
      ? "The patient's right is on the left of the screen."
      : "The patient's right is on the right of the screen.";
  describe();
}

function setWindow(centre: number, width: number): void {
  input("centre").value = String(Math.round(Math.min(255, Math.max(0, centre))));
  input("width").value = String(Math.round(Math.min(255, Math.max(1, width))));
  takeWindow();
}

function takeWindow(): void {
  const [centre, width] = [Number(input("centre").value), Number(input("width").value)];
  element("centre-value").textContent = String(centre);
  element("width-value").textContent = String(width);
  element("corner-window").textContent = `W ${width}  L ${centre}`;
  viewer?.window(centre, width);
}

function reset(): void {
  setWindow(FULL.centre, FULL.width);
  viewer?.fit();
}

function cycle(): void {
  const all = [...document.querySelectorAll<HTMLInputElement>("input[name=fill]")];
  all[(all.findIndex((radio) => radio.checked) + 1) % all.length]!.checked = true;
  takeDisplay();
}

function key(name: string): boolean {
  const step = stepped(name, current, slices());
  const acts: Record<string, () => void> = {
    n: () => tumour(1),
    p: () => tumour(-1),
    l: largest,
    o: () => input("outline").click(),
    m: cycle,
    r: reset,
    "+": () => viewer?.zoom(1.25),
    "=": () => viewer?.zoom(1.25),
    "-": () => viewer?.zoom(0.8),
    "0": () => viewer?.fit(),
    "?": () => element<HTMLDialogElement>("keys").showModal(),
  };
  if (step !== null) go(step);
  else acts[name.toLowerCase()]?.();
  return step !== null || name.toLowerCase() in acts;
}

// -- downloads ------------------------------------------------------------------------------------------------------

async function saveFile(kind: "mask" | "probability" | "seg"): Promise<void> {
  if (!shown) return;
  const { given } = shown;
  const note = element("download-note");
  const what = { mask: "mask", probability: "probability map", seg: "DICOM SEG" }[kind];
  note.textContent = `Making the ${what}…`;
  try {
    const name = `${stem(given.name)}-${kind}${kind === "seg" ? ".dcm" : ".nii.gz"}`;
    save(await api.file(given, kind, new AbortController().signal), name);
    if (shown?.given === given) note.textContent = `${sentence(what).slice(0, -1)} saved, in the geometry of the file.`;
  } catch (error) {
    const told = error instanceof api.Refusal ? `${sentence(error.what)} ${sentence(error.fix)}` : String(error);
    if (shown?.given === given) note.textContent = told;
  }
}

function saveLesions(): void {
  if (!shown) return;
  const name = stem(shown.given.name);
  save(new Blob([lesions.table(name, shown.answer.lesions)], { type: "text/csv" }), `${name}-lesions.csv`);
}

function saveOverlay(): void {
  if (!shown || !viewer) return;
  const { given, answer } = shown;
  const lines = [
    `Research use only. Not for clinical use.  ${sides()}  Model ${answer.model.weights_sha256.slice(0, 12)}`,
    `Slice ${viewer.slice} of ${slices()}, ${area(answer.slices[viewer.slice - 1]!)}, outlined by brainseg`,
  ];
  const name = `${stem(given.name)}-slice-${viewer.slice}.png`;
  const letters = [...document.querySelectorAll(".mark")].map((mark) => mark.textContent ?? "");
  viewer.picture(letters, lines).toBlob((blob) => blob && save(blob, name), "image/png");
}

/** A file's name without its ending and without what some system might not take. */
function stem(name: string): string {
  return name.replace(/(\.(nii|hdr|img))?\.[a-z0-9]+$/i, "").replace(/[^\p{L}\p{N}._-]+/gu, "_").slice(0, 80) || "brainseg";
}

function save(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// -- another rule ---------------------------------------------------------------------------------------------------

/** Ask for the same files again; the slice on the page and the place of the keyboard stay. */
async function outlineAgain(asked: Partial<api.Rule>): Promise<void> {
  if (!shown) return;
  const given = { ...shown.given, rule: asked };
  const slice = current;
  await open(() => given, given.name);
  if (shown?.given !== given) return;
  go(slice);
  element("threshold").focus({ preventScroll: true });
}

// -- sequences, examples, the model ---------------------------------------------------------------------------------

function assign(found: Partial<Record<"pre" | "flair" | "post", File>>): void {
  element<HTMLFormElement>("sequences-form").reset();
  for (const [role, file] of Object.entries(found)) {
    const list = new DataTransfer();
    list.items.add(file);
    input(`part-${role}`).files = list.files;
  }
  const dialog = element<HTMLDialogElement>("sequences");
  if (!dialog.open) dialog.showModal();
}

function assigned(): void {
  const parts = (["flair", "pre", "post"] as const).flatMap((role) => {
    const file = input(`part-${role}`).files?.[0];
    return file ? [{ role, file }] : [];
  });
  const name = parts[0]!.file.name + (parts.length > 1 ? ` and ${parts.length - 1} more` : "");
  void open(() => ({ name, parts }), name);
}

async function listExamples(): Promise<void> {
  const found = await api.examples();
  const buttons = found.map((chosen) => {
    const item = document.createElement("li");
    const button = words("button", chosen.title) as HTMLButtonElement;
    button.type = "button";
    button.addEventListener("click", () => {
      void open(async (signal) => ({ name: chosen.title, parts: [{ role: "file", file: await api.example(chosen, signal) }] }), chosen.title);
    });
    item.append(button);
    return item;
  });
  element("examples").querySelector("ul")!.replaceChildren(...buttons);
  show("examples", found.length > 0);
}

// -- events ---------------------------------------------------------------------------------------------------------

function wire(): void {
  const click = (id: string, act: () => void) => element(id).addEventListener("click", act);
  const dialog = (id: string) => element<HTMLDialogElement>(id).showModal();
  click("choose", () => input("files").click());
  click("another", () => input("files").click());
  click("choose-folder", () => input("folder").click());
  for (const id of ["files", "folder"]) {
    input(id).addEventListener("change", () => {
      const files = [...(input(id).files ?? [])];
      input(id).value = ""; // so that the same file can be chosen again
      if (files.length) openFiles(files);
    });
  }
  for (const id of ["cancel", "close"]) {
    click(id, () => {
      clear();
      element("choose").focus(); // the button that had the focus is hidden now
    });
  }
  click("largest", largest);
  click("next", () => tumour(1));
  click("previous", () => tumour(-1));
  click("reset", reset);
  click("zoom-in", () => viewer?.zoom(1.25));
  click("zoom-out", () => viewer?.zoom(0.8));
  click("zoom-reset", () => viewer?.fit());
  click("save-mask", () => void saveFile("mask"));
  click("save-probability", () => void saveFile("probability"));
  click("save-seg", () => void saveFile("seg"));
  click("save-lesions", saveLesions);
  click("save-overlay", saveOverlay);
  click("show-sequences", () => assign({}));
  click("show-model", () => dialog("card"));
  click("show-card", () => dialog("card"));
  click("show-keys", () => dialog("keys"));
  document.querySelectorAll(".dismiss").forEach((button) => button.addEventListener("click", () => button.closest("dialog")!.close()));
  element("sequences-form").addEventListener("submit", (event) => {
    event.preventDefault();
    element<HTMLDialogElement>("sequences").close();
    assigned();
  });
  click("rule-own", () => void outlineAgain({}));
  element("rule-form").addEventListener("submit", (event) => {
    event.preventDefault();
    void outlineAgain(rule.chosen());
  });
  input("slice").addEventListener("input", () => go(Number(input("slice").value)));
  for (const id of ["centre", "width"]) input(id).addEventListener("input", takeWindow);
  for (const id of ["opacity", "outline"]) input(id).addEventListener("input", takeDisplay);
  document.querySelectorAll("input[type=radio]").forEach((radio) => radio.addEventListener("change", takeDisplay));
  element<HTMLSelectElement>("channel").addEventListener("change", (event) => {
    void viewer?.channel((event.target as HTMLSelectElement).selectedIndex);
  });
  listen(element("stage"), {
    scroll: (by) => go(current + by),
    window: (width, level) => setWindow(Number(input("centre").value) - level / 2, Number(input("width").value) + width / 2),
    move: (x, y) => viewer?.move(x, y),
    zoom: (factor, x, y) => viewer?.zoom(factor, x, y),
    key,
  });
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
    clear();
    intake.dropped(event.dataTransfer).then(openFiles, (error) => refuse(error, () => undefined));
  });
}

async function start(): Promise<void> {
  theme.start();
  wire();
  drops();
  state("empty");
  api.model().then((model) => {
    card.present(model);
    rule.model(model.rule);
  }, card.missing);
  listExamples().catch(() => show("examples", false));
  try {
    viewer = await Viewer.attach(element<HTMLCanvasElement>("image"), element<HTMLCanvasElement>("lines"));
  } catch (error) {
    console.error(error);
    document.body.dataset.viewer = "none";
    refuse(new api.Refusal("This browser cannot draw images (no WebGL 2)", "Numbers and the mask's download still work. Use another browser, or switch its graphics acceleration on."), () => undefined);
  }
  document.body.dataset.ready = "true";
}

void start();

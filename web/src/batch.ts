// Many cases at once: a list that is worked through, one table and one zip at its end.

import { zipSync } from "fflate";

import { Store, type Entry, type Row } from "./batchStore";
import { DISCLAIMER } from "./core/answer";
import type { Group } from "./core/discover";
import { writeNifti } from "./core/niftiFile";
import { CancelledError } from "./core/outliner";
import { Refusal } from "./core/refusal";
import { algorithm } from "./downloads";
import type { Result } from "./engines/engine";
import type { Step } from "./engines/types";
import { announce, click, download, element, focus, measured, number, plainName, sentence, words } from "./page";
import { goHome, open, setHome } from "./session";
import { sketch } from "./sketch";
import { on, state } from "./state";
import { csv } from "./tables";
import { describe } from "./waiting";

const THUMBNAIL = 88; // pixels
const COLUMNS: (keyof Row)[] = ["kind", "slices", "slices_with_tumour", "largest_slice", "area_mm2", "area_pixels", "volume_ml", "mean_probability", "dice"];

let store: Store;
let entries: Entry[] = [];
/** The case in work; ended when another one is looked at. */
let working: { entry: Entry; stop: AbortController } | null = null;

export async function start(): Promise<void> {
  click("batch-table", () => download(new Blob([table()], { type: "text/csv" }), "brainseg-summary.csv"));
  click("batch-zip", () => download(new Blob([zip() as BlobPart], { type: "application/zip" }), "brainseg-masks.zip"));
  click("batch-forget", () => void forget());
  on("opened", () => {
    if (!state.shown && entries.length) void work(); // a single case was closed
  });
  store = await Store.open();
  entries = await store.all();
  if (entries.length) enter();
}

/** Put cases on the list, after those that are there. */
export async function add(groups: Group[]): Promise<void> {
  const first = Math.max(0, ...entries.map(({ id }) => id)) + 1;
  const added = groups.map((group, n): Entry => {
    return { id: first + n, name: nameFor(group, groups), items: [...group.items, ...group.masks], state: "waiting", told: "" };
  });
  entries.push(...added);
  enter();
  for (const entry of added) await store.put(entry);
}

/** With the folder where several have one name. */
function nameFor({ label, items }: Group, all: Group[]): string {
  const folder = items[0]!.path.split("/").at(-2);
  return folder && all.filter((other) => other.label === label).length > 1 ? `${folder}/${label}` : label;
}

function enter(): void {
  setHome("batch");
  goHome();
  draw();
  focus("batch-title");
  void work();
}

/** One case after the other; stops while a single one is looked at. */
export async function work(): Promise<void> {
  if (working) return;
  for (let entry = next(); entry && document.body.dataset.state === "batch"; entry = next()) {
    const stop = new AbortController();
    working = { entry, stop };
    draw();
    try {
      const given = { name: entry.name, parts: entry.items.map((item) => ({ role: "file" as const, item })), choice: {} };
      await finish(entry, await state.engine!.outline(given, stop.signal, (step) => progress(entry!, step)));
    } catch (error) {
      if (error instanceof CancelledError || stop.signal.aborted) break;
      const told = error instanceof Refusal ? `${sentence(error.what)} ${sentence(error.fix)}` : String(error);
      Object.assign(entry, { state: "refused", told });
    }
    await store.put(entry);
    working = null;
  }
  working = null;
  draw();
}

function next(): Entry | undefined {
  return entries.find((entry) => entry.state === "waiting");
}

async function finish(entry: Entry, result: Result): Promise<void> {
  const { answer, image, place, mask, reference } = result;
  const { summary, input, model } = answer;
  const dice = reference ? (await state.engine!.score(reference, mask)).dice : null;
  const { slices_with_tumour, largest_slice, area_mm2, area_pixels, volume_ml, mean_probability } = summary;
  const slice = (largest_slice ?? Math.ceil(image.slices / 2)) - 1;
  Object.assign(entry, {
    state: "done",
    told: [...answer.warnings, result.referenceRefused].filter(Boolean).map(sentence).join(" "),
    row: { kind: input.kind, slices: input.slices, slices_with_tumour, largest_slice, area_mm2, area_pixels, volume_ml, mean_probability, dice },
    model: model.weights_sha256,
    mask: await writeNifti(mask, image, place?.geometry ?? null, `brainseg mask; model ${model.weights_sha256.slice(0, 12)}; research use only`),
    seg: await segOf(result),
    picture: sketch(result, slice, THUMBNAIL).toDataURL(),
  } satisfies Partial<Entry>);
}

/** The mask of a DICOM series as DICOM SEG; none of an empty one, and none of what a server has read. */
async function segOf({ where, answer, mask }: Result): Promise<Uint8Array | undefined> {
  if (where !== "here" || !answer.seg || !answer.summary.slices_with_tumour) return undefined;
  return state.engine!.seg(mask, { parameters: algorithm(answer), edited: false });
}

/** Look at one case: it is outlined again, and the list waits. */
function look(entry: Entry): void {
  working?.stop.abort();
  working = null;
  const given = { name: entry.name, parts: entry.items.map((item) => ({ role: "file" as const, item })), choice: {} };
  void open(() => given, entry.name);
}

async function forget(): Promise<void> {
  working?.stop.abort();
  working = null;
  entries = [];
  const forgotten = store.forget();
  setHome("empty");
  goHome();
  focus("choose");
  await forgotten;
  announce("The list was forgotten");
}

function draw(): void {
  const done = entries.filter((entry) => entry.state !== "waiting").length;
  element("batch-title").textContent = `${number(entries.length)} cases`;
  element("batch-state").textContent = done < entries.length ? `${number(done)} of ${number(entries.length)} done` : "All done";
  if (entries.length && done === entries.length) announce("All cases are done");
  for (const id of ["batch-table", "batch-zip"]) element<HTMLButtonElement>(id).disabled = !done;
  element("batch").querySelector("tbody")!.replaceChildren(...entries.map(line));
}

function line(entry: Entry): HTMLElement {
  const made = document.createElement("tr");
  made.id = `case-${entry.id}`;
  const head = document.createElement("th");
  head.scope = "row";
  const button = words("button", entry.name) as HTMLButtonElement;
  button.type = "button";
  button.className = "quiet";
  button.addEventListener("click", () => look(entry));
  head.append(button);
  const picture = document.createElement("td");
  if (entry.picture) {
    const image = document.createElement("img");
    image.src = entry.picture;
    image.alt = "";
    picture.append(image);
  }
  const cells = { State: stateOf(entry), Volume: volumeOf(entry), Dice: score(entry), Remarks: entry.told };
  made.append(picture, head, ...Object.entries(cells).map(([column, text]) => {
    const cell = words("td", text);
    cell.dataset.column = column; // where the rows are cards, which have no head
    return cell;
  })); // prettier-ignore
  return made;
}

function stateOf(entry: Entry): string {
  return working?.entry === entry ? "in work" : entry.state;
}

function volumeOf({ row }: Entry): string {
  if (!row) return "";
  if (!row.slices_with_tumour) return "none";
  return row.volume_ml === null ? `largest ${number(row.area_pixels)} px` : `${measured(row.volume_ml)} ml`;
}

function score({ row }: Entry): string {
  return row?.dice === null || row?.dice === undefined ? "" : number(row.dice, 3);
}

function progress(entry: Entry, step: Step): void {
  const cell = document.querySelector(`#case-${entry.id} td:nth-of-type(2)`);
  if (cell) cell.textContent = describe(step);
}

function table(): string {
  const lines = entries.map((entry) => {
    const cells = COLUMNS.map((column) => entry.row?.[column] ?? "");
    const [warnings, error] = entry.state === "refused" ? ["", entry.told] : [entry.told, ""];
    return [entry.name, entry.state, ...cells.map(String), warnings, entry.model ?? "", error, DISCLAIMER];
  });
  return csv([["case", "state", ...COLUMNS, "warnings", "model", "error", "use"], ...lines]);
}

/** The masks and the table. The masks are packed already. */
function zip(): Uint8Array {
  const files: Record<string, [Uint8Array, { level: 0 }]> = { "summary.csv": [new TextEncoder().encode(table()), { level: 0 }] };
  for (const { id, name, mask, seg } of entries) {
    const path = `masks/${String(id).padStart(3, "0")}-${plainName(name)}`;
    if (mask) files[`${path}-mask.nii.gz`] = [mask, { level: 0 }];
    if (seg) files[`${path}-seg.dcm`] = [seg, { level: 0 }];
  }
  return zipSync(files);
}

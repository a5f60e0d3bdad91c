// Views and tools: planes, measuring, brush, eraser, filling, undo and redo.

import type { Axis } from "./core/editing";
import type { Choice } from "./core/rule";
import type { Triple } from "./core/voxels";
import { announce, checked, choose, click, element, input, measured, number, show } from "./page";
import * as slices from "./slices";
import { edited, emit, on, state } from "./state";
import * as threshold from "./threshold";
import type { View } from "./viewer/looks";
import type { Viewer } from "./viewer/viewer";

export type Mode = "look" | "measure" | "brush" | "eraser" | "fill";
type Spot = NonNullable<ReturnType<Viewer["at"]>>;

const AFTER = 150; // milliseconds after the last stroke before the numbers are counted again

let last: Spot | null = null; // of the stroke under way
let timer = 0;

export function start(): void {
  document.querySelectorAll("input[name=view]").forEach((radio) => radio.addEventListener("change", look));
  document.querySelectorAll("input[name=mode]").forEach((radio) => radio.addEventListener("change", takeMode));
  input("brush").addEventListener("input", takeMode);
  click("undo", () => step("undo"));
  click("redo", () => step("redo"));
  on("opened", opened);
  on("mask", buttons);
}

export function mode(): Mode {
  return checked("mode") as Mode;
}

export function resizeBrush(by: number): void {
  input("brush").value = String(Number(input("brush").value) + by);
  takeMode();
}

/** What the pointer does with the tool that is chosen. True: it was used, and nothing else is meant. */
export function press(x: number, y: number): boolean {
  const spot = state.viewer?.at(x, y);
  const tool = mode();
  if (!spot || tool === "look") return false;
  last = spot;
  if (tool === "measure") measure(spot, spot);
  else if (tool === "fill") fill(spot);
  else stroke(spot);
  return true;
}

export function drag(x: number, y: number): boolean {
  const tool = mode();
  if (!last || tool === "look") return false;
  const spot = state.viewer?.at(x, y);
  if (!spot || spot.tile.axis !== last.tile.axis) return true;
  if (tool === "measure") measure(last, spot);
  else if (tool !== "fill") stroke(spot);
  return true;
}

export function release(): void {
  if (!last) return;
  last = null;
  if (mode() === "measure") announce(`Distance ${state.viewer?.measuredWords ?? ""}`);
  else changed();
}

/** The pointer over the picture: the value there, and the place of the brush. */
export function hover(x: number, y: number): void {
  const { viewer } = state;
  const spot = viewer?.at(x, y) ?? null;
  element("reading").textContent = spot ? slices.reading(spot.voxel) : "";
  if (!viewer) return;
  const painting = mode() === "brush" || mode() === "eraser";
  if (!painting && !viewer.brush) return;
  viewer.brush = painting && spot ? { tile: spot.tile, at: [spot.a, spot.b], radii: [radii()[spot.tile.across], radii()[spot.tile.down]] } : null;
  viewer.redraw();
}

export function step(way: "undo" | "redo"): void {
  const { shown } = state;
  const choice = shown?.editor[way]();
  if (!shown || choice === null || choice === undefined) return;
  announce(way === "undo" ? "Undone" : "Redone");
  void retake(choice);
  changed();
}

function opened(): void {
  const several = (state.shown?.result.image.slices ?? 1) > 1;
  show("views", several);
  choose("view", "axial");
  choose("mode", "look");
  buttons();
}

function look(): void {
  const view = checked("view") as View;
  if (state.shown && document.body.dataset.viewer !== "none") state.viewer?.look(view);
  document.body.dataset.view = view;
  emit("view");
}

function takeMode(): void {
  const painting = mode() === "brush" || mode() === "eraser";
  show("brush-row", painting);
  element("brush-value").textContent = size();
  document.body.dataset.mode = mode();
  if (state.viewer) state.viewer.brush = null;
  if (mode() !== "look" && checked("view") === "solid") choose("view", "axial");
  if (state.shown) state.viewer?.redraw();
}

function buttons(): void {
  const editor = state.shown?.editor;
  element<HTMLButtonElement>("undo").disabled = !editor?.canUndo;
  element<HTMLButtonElement>("redo").disabled = !editor?.canRedo;
}

/** The brush in words: millimetres across where they are known. */
function size(): string {
  const across = 2 * Number(input("brush").value) - 1;
  return state.shown?.result.place ? `${number(across)} mm` : `${number(across)} px`;
}

/** Half of the brush, in voxels along slices, rows and columns. */
function radii(): Triple {
  const half = Number(input("brush").value) - 0.5;
  const [row, column, slice] = state.shown?.result.place?.spacing ?? [1, 1, 1];
  return [half / slice, half / row, half / column].map((value) => Math.max(0.5, value)) as Triple;
}

function stroke(spot: Spot): void {
  const { editor } = state.shown!;
  const value = mode() === "brush" ? 1 : 0;
  const from = last!.voxel;
  const steps = Math.max(1, ...spot.voxel.map((place, n) => Math.abs(place - from[n]!)));
  let any = false;
  for (let n = 1; n <= steps; n++) {
    const at = spot.voxel.map((place, k) => Math.round(from[k]! + ((place - from[k]!) * n) / steps)) as Triple;
    any = editor.paint(at, spot.tile.axis, radii(), value) || any;
  }
  last = spot;
  if (any) state.viewer!.changed();
}

function fill(spot: Spot): void {
  const filled = state.shown!.editor.fill(spot.voxel, spot.tile.axis);
  if (filled) state.viewer!.changed();
  else announce("Nothing to fill: click inside a closed outline");
  element("reading").textContent = filled ? "" : "Nothing to fill: click inside a closed outline";
}

/** A line on the image, in millimetres where the file says how large a voxel is. */
function measure(from: Spot, to: Spot): void {
  const viewer = state.viewer!;
  const { axis, across, down } = from.tile;
  const spacing = state.shown!.result.place?.spacing;
  const side = (n: Axis) => (spacing ? { 0: spacing[2], 1: spacing[0], 2: spacing[1] }[n] : 1);
  const length = Math.hypot((to.a - from.a) * side(across), (to.b - from.b) * side(down));
  viewer.measured = { tile: { axis }, slice: slices.at()[axis], from: [from.a, from.b], to: [to.a, to.b] };
  viewer.measuredWords = `${measured(length)} ${spacing ? "mm" : "px"}`;
  viewer.redraw();
}

/** The mask is another one: everything that is told of it follows. */
function changed(): void {
  const { shown, engine } = state;
  if (!shown || !engine) return;
  shown.editor.commit();
  state.unsaved = true;
  state.viewer?.changed();
  buttons();
  clearTimeout(timer);
  timer = window.setTimeout(async () => {
    const numbers = await engine.count(shown.editor.mask);
    if (state.shown !== shown) return;
    shown.numbers = numbers;
    emit("mask");
    if (edited()) announce(`Mask edited, ${numbers.summary.volume_ml === null ? `${number(numbers.summary.tumour_pixels)} pixels` : `${measured(numbers.summary.volume_ml)} ml`}`);
  }, AFTER);
}

/** The rule of an undone step is in the fields again. */
async function retake(choice: Choice): Promise<void> {
  const { shown, engine } = state;
  if (!shown || !engine || JSON.stringify(choice) === JSON.stringify(shown.given.choice)) return;
  const { answer } = await engine.apply(shown.given, choice, shown.result, new AbortController().signal);
  if (state.shown !== shown) return;
  shown.given = { ...shown.given, choice };
  shown.result.answer = answer;
  threshold.present();
}

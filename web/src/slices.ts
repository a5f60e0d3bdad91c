// Which slice is looked at, in whatever plane: the crosshair, the strip of areas, the slider, and what is told of it.

import { area, Bars, stepped } from "./bars";
import type { Axis } from "./core/editing";
import type { Triple } from "./core/voxels";
import * as lesions from "./lesions";
import { announce, element, input, number, percent, show, words } from "./page";
import { emit, on, state } from "./state";
import { ACROSS } from "./viewer/looks";

const NAMES: Record<Axis, string> = { 0: "Slice", 1: "Coronal slice", 2: "Sagittal slice" };
const QUIET = 350; // milliseconds without a step before a slice is told to screen readers

let cursor: Triple = [0, 0, 0]; // also without a viewer
let telling = 0;
const bars = new Bars((slice) => go(0, slice - 1));

export function start(): void {
  input("slice").addEventListener("input", () => go(axis(), Number(input("slice").value) - 1));
  on("opened", opened);
  on("mask", () => {
    if (state.shown) bars.show(state.shown.numbers.slices);
    place(false);
  });
  on("view", () => place(false));
}

/** The axis that the keys, the wheel and the slider move along. */
export function axis(): Axis {
  return state.viewer ? ACROSS[state.viewer.view] : 0;
}

export function shape(): Triple {
  const { slices, height, width } = state.shown!.result.image;
  return [slices, height, width];
}

/** Put the crosshair on a voxel. */
export function point(at: Triple): void {
  cursor = at;
  place(true);
}

export function go(along: Axis, to: number): void {
  if (!state.shown) return;
  const at: Triple = [...cursor];
  at[along] = Math.min(shape()[along] - 1, Math.max(0, to));
  point(at);
}

export function move(by: number): void {
  go(axis(), cursor[axis()] + by);
}

/** A key of movement; false for any other. */
export function key(name: string): boolean {
  const wanted = stepped(name, cursor[axis()] + 1, state.shown ? shape()[axis()] : 0);
  if (wanted === null || !state.shown) return false;
  go(axis(), wanted - 1);
  return true;
}

/** The next slice with tumour in a direction; stays where there is none. */
export function tumour(direction: 1 | -1): void {
  const slices = state.shown?.numbers.slices ?? [];
  for (let n = cursor[0] + direction; slices[n]; n += direction) if (slices[n]!.pixels) return go(0, n);
}

export function largest(): void {
  const found = state.shown?.numbers.summary.largest_slice;
  if (found) go(0, found - 1);
}

/** The crosshair, from 0. */
export function at(): Triple {
  return cursor;
}

function opened(): void {
  const { shown } = state;
  bars.show(shown?.numbers.slices ?? []);
  if (!shown) return;
  const [slices] = shape();
  cursor = begin();
  lesions.present(shown.numbers.lesions, slices, (slice) => go(0, slice - 1));
  place(false);
}

/** The middle of the largest area; without tumour that of the image. */
function begin(): Triple {
  const { numbers, editor } = state.shown!;
  const [slices, height, width] = shape();
  const slice = (numbers.summary.largest_slice ?? Math.ceil(slices / 2)) - 1;
  let [count, rows, columns] = [0, 0, 0];
  for (let at = 0; at < height * width; at++) {
    if (editor.mask[slice * height * width + at]) [count, rows, columns] = [count + 1, rows + Math.floor(at / width), columns + (at % width)];
  }
  return count ? [slice, Math.round(rows / count), Math.round(columns / count)] : [slice, Math.floor(height / 2), Math.floor(width / 2)];
}

function place(tell: boolean): void {
  const { shown, viewer } = state;
  if (!shown) return;
  viewer?.go(cursor);
  const along = axis();
  const count = shape()[along];
  const facts = shown.numbers.slices[cursor[0]]!;
  show("strip", count > 1 && document.body.dataset.state === "result");
  element("bars").toggleAttribute("hidden", along !== 0);
  bars.at(cursor[0] + 1);
  lesions.at(cursor[0] + 1);
  const slider = input("slice");
  [slider.max, slider.value] = [String(count), String(cursor[along] + 1)];
  const own = shown.result.numbers[cursor[0]]!;
  const named = along === 0 && own !== cursor[0] + 1 ? [words("span", `no. ${own}`)] : [];
  const counted = count > 1 ? [words("b", `${cursor[along] + 1} / ${count}`)] : [];
  element("corner-slice").replaceChildren(...counted, ...named, words("span", along === 0 ? area(facts) : NAMES[along]));
  name();
  if (tell) tellSoon(describe());
  emit("place");
}

/** What the picture and the slider are called. */
export function name(): void {
  if (!state.shown) return;
  element("stage").setAttribute("aria-label", describe());
  input("slice").setAttribute("aria-valuetext", describe());
}

/** What a sighted person sees of the slice, for everybody else. */
function describe(): string {
  const along = axis();
  const facts = state.shown!.numbers.slices[cursor[0]]!;
  const what = along === 0 ? `, ${area(facts)}` : "";
  return `${NAMES[along]} ${cursor[along] + 1} of ${shape()[along]}${what}. ${element("corner-side").textContent}`;
}

/** Not each slice of a quick scroll. */
function tellSoon(text: string): void {
  clearTimeout(telling);
  telling = window.setTimeout(() => announce(text), QUIET);
}

/** Position, value and probability of a voxel, in a few words. */
export function reading(voxel: Triple): string {
  const { shown, viewer } = state;
  if (!shown || !viewer) return "";
  const [, height, width] = shape();
  const level = shown.result.probability[(voxel[0] * height + voxel[1]) * width + voxel[2]]!;
  const value = viewer.valueAt(voxel);
  return `${voxel[2] + 1}, ${voxel[1] + 1}, ${voxel[0] + 1}: ${number(value, Number.isInteger(value) ? 0 : 2)}, output ${percent(level / 255)}`;
}

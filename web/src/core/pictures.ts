// PNG, JPEG and TIF to pixels. Nothing is rescaled, wrapped or guessed. The Python side: brainseg.io.pictures.

import { MAX_VOXELS } from "./orientation";
import { readJpeg } from "./jpeg";
import type { Pages, Picture } from "./pixels";
import { readPng } from "./png";
import { Refusal } from "./refusal";
import { readTif } from "./tif";
import { toLabels as valuesToLabels } from "./values";
import type { Stack, Values } from "./voxels";

const MIN_SIDE = 8;
const MAX_SIDE = 4096;
const JPEG_NOISE = 16; // grey levels by which JPEG of good quality changes black and white

export async function decode(bytes: Uint8Array): Promise<Pages> {
  const begins = (...marks: number[]) => marks.every((mark, n) => bytes[n] === mark);
  let found: Pages;
  if (begins(0x89, 0x50, 0x4e, 0x47)) found = { kind: "PNG", pages: [readPng(bytes)], axes: [] };
  else if (begins(0xff, 0xd8)) found = { kind: "JPEG", pages: [await readJpeg(bytes)], axes: [] };
  else if (begins(0x49, 0x49, 42, 0) || begins(0x4d, 0x4d, 0, 42)) found = { kind: "TIF", ...(await readTif(bytes)) };
  else throw new Refusal("is neither a TIFF nor a PNG nor a JPEG", "Save it as one of them");
  found.pages.forEach(check);
  return found;
}

/** Pages as the slices of one image; three channels of each slice where the description says that the pages are channels. */
export function toStack({ pages, axes }: Pages): Stack {
  const [first] = pages as [Picture];
  const kind = ({ values, width, height, channels }: Picture) => [values.constructor.name, width, height, channels].join();
  if (pages.some((page) => kind(page) !== kind(first))) throw new Refusal("holds pages of different kinds", "Save pages of one size and depth");
  const length = first.values.length;
  if (length * pages.length > MAX_VOXELS) throw new Refusal("holds more values than are accepted", "Split it into one file per patient, or resize it");
  const values = new (first.values.constructor as new (length: number) => Values)(length * pages.length);
  pages.forEach((page, n) => values.set(page.values, n * length));
  const { width, height, channels } = first;
  return arrange({ values, slices: pages.length, width, height, channels }, axes);
}

/** The same for masks: whole numbers, one channel. */
export function toLabelStack(found: Pages): Stack {
  const pages = found.pages.map((page) => {
    const values = labelsOf(page);
    return { ...page, values: found.kind === "JPEG" ? restored(values) : values, channels: 1 };
  });
  return toStack({ ...found, pages });
}

function check({ width, height, values }: Picture): void {
  if (Math.min(width, height) < MIN_SIDE || Math.max(width, height) > MAX_SIDE) {
    throw new Refusal(`is ${width} x ${height} pixels, sides must be ${MIN_SIDE} to ${MAX_SIDE}`, "Crop, resize or remove it");
  }
  if (values instanceof Float32Array && !values.every(Number.isFinite)) {
    throw new Refusal("holds NaN or infinity", "Replace them, or remove the slice");
  }
}

function arrange(stack: Stack, axes: Pages["axes"]): Stack {
  const slices = axes.filter(([axis]) => "ZIQ?".includes(axis));
  if ((slices.length === axes.length && axes.length < 2) || (slices.length === 1 && slices[0]![1] === stack.slices)) return stack;
  const all = axes.reduce((product, [, length]) => product * length, 1);
  const coloured = axes.findIndex(([axis, length]) => axis === "C" && length === 3);
  if (all === stack.slices && stack.channels === 1 && coloured >= 0 && slices.length === axes.length - 1 && slices.length < 2) {
    return joined(stack, coloured === axes.length - 1);
  }
  const shown = axes.map(([axis, length]) => `${length} ${{ C: "channels", T: "time points", Z: "slices" }[axis] ?? "pages"}`).join(" x ");
  throw new Refusal(
    `is ${shown} by its description, in ${stack.slices} pages; slices are accepted, with one or three channels`,
    "Save one channel of one time point as a TIF of its own",
  );
}

/** Pages that are channels, side by side. `fastest`: the channels of a slice follow each other. */
function joined(stack: Stack, fastest: boolean): Stack {
  const area = stack.width * stack.height;
  const slices = stack.slices / 3;
  const values = new (stack.values.constructor as new (length: number) => Values)(stack.values.length);
  for (let s = 0; s < slices; s++) {
    for (let k = 0; k < 3; k++) {
      const page = fastest ? 3 * s + k : k * slices + s;
      for (let at = 0; at < area; at++) values[(s * area + at) * 3 + k] = stack.values[page * area + at]!;
    }
  }
  return { ...stack, values, slices, channels: 3 };
}

/** A palette's indices are the labels, unless it only gives the greys another order. Three equal channels are one. */
function labelsOf({ values, channels, palette }: Picture): Values {
  if (palette) {
    const used = [...new Set(palette.indices)].sort((a, b) => a - b).map((index) => palette.colours[index]);
    const grey = used.every((colour) => colour && colour.every((value) => value === colour[0]));
    const ordered = used.every((colour, n) => !n || colour![0]! >= used[n - 1]![0]!);
    return grey && !ordered ? palette.indices.map((index) => palette.colours[index]![0]!) : palette.indices;
  }
  return channels === 3 ? merged(values) : values instanceof Float32Array ? valuesToLabels(values, null) : values;
}

/** Three equal channels as one; one colour on black as its largest value. */
function merged(values: Values): Values {
  const labels = new Uint8Array(values.length / 3);
  const colours = new Set<string>();
  let gray = true;
  for (let at = 0; at < labels.length; at++) {
    const colour = values.subarray(3 * at, 3 * at + 3);
    labels[at] = Math.max(...colour);
    gray &&= colour[0] === colour[1] && colour[0] === colour[2];
    if (labels[at]) colours.add(colour.join());
  }
  if (gray || colours.size === 1) return labels;
  const what = `is a mask in ${colours.size} colours beside black, so its labels are unknown`;
  throw new Refusal(what, "Save it in one channel, each label a number; or black and white");
}

/** 0 and 255 of a mask that was saved as JPEG, if nothing lies between. */
function restored(labels: Values): Values {
  if (labels.some((value) => value > JPEG_NOISE && value < 255 - JPEG_NOISE)) {
    throw new Refusal("is a JPEG, which changed the mask's values", "Save the mask as PNG or TIF from where it was drawn; or threshold it at 128");
  }
  return Uint8Array.from(labels, (value) => (value > 127 ? 255 : 0));
}

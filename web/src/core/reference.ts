// A mask of one's own on the grid of a case: read, and compared with the outline. Scores as in brainseg.evaluation.metrics.

import { bytesOf, joinSlices, naming } from "./cases";
import { nameOf, stemOf, type Item } from "./discover";
import { isGzip } from "./inflate";
import * as nifti from "./nifti";
import { samePlace } from "./orientation";
import { decode, toLabelStack } from "./pictures";
import { Refusal } from "./refusal";
import { decimals, percentile } from "./rounding";
import type { Case, Stack, Triple } from "./voxels";

/** The mask, 0 and 1, slices in the order of the case. `slices`: the names of its pictures, where it is made of several. */
export async function readReference(items: Item[], given: Case, slices: readonly string[]): Promise<Uint8Array> {
  const { stack, place } = items.length === 1 ? await readOne(items[0]!) : { stack: await readMany(items, slices), place: null };
  const size = ({ slices: count, height, width }: Pick<Stack, "slices" | "height" | "width">) => `${count} x ${height} x ${width}`;
  const fix = "Draw it on this image, or resample it to the image's grid (nearest neighbour)";
  if (size(stack) !== size(given.stack)) throw new Refusal(`The mask has ${size(stack)} slices, rows and columns, the image ${size(given.stack)}`, fix);
  if (place && given.place && !samePlace(place, given.place)) throw new Refusal("The mask lies elsewhere in space than the image: their orientation matrices differ", fix);
  if (!place !== !given.place) throw new Refusal("The mask and the image are of different kinds, one with a place in space and one without", "Save both as NIfTI, or both as TIF");
  return Uint8Array.from(stack.values, (value) => Number(value > 0));
}

async function readOne(item: Item): Promise<{ stack: Stack; place: Case["place"] }> {
  return naming(nameOf(item), async () => {
    const bytes = await bytesOf(item);
    if (isGzip(bytes) || nifti.isNifti(bytes)) return nifti.readLabels(bytes);
    return { stack: toLabelStack(await decode(bytes)), place: null };
  });
}

/** A mask for each slice, by its name: X_mask beside X. */
async function readMany(items: Item[], slices: readonly string[]): Promise<Stack> {
  const found: Stack[] = [];
  for (const slice of slices) {
    const own = items.find((item) => [`${slice}_mask`, `${slice}_seg`].includes(stemOf(item)));
    if (!own) throw new Refusal(`There is no mask for ${slice}`, "Give one for each slice, named as the slice with _mask at its end");
    found.push(await naming(nameOf(own), async () => toLabelStack(await decode(await bytesOf(own)))));
  }
  if (!found.length) throw new Refusal("Several masks for one image", "Give one mask");
  return joinSlices(found.map((stack) => ({ ...stack, values: Uint8Array.from(stack.values, (value) => Number(value > 0)) })), "The masks");
}

/** Null is what has no meaning: both masks are empty, or a distance to nothing. */
export interface Scores {
  dice: number | null;
  iou: number | null;
  hd95: number | null; // mm, or pixels where no size is known
  unit: "mm" | "px";
  reference_voxels: number;
  outline_voxels: number;
  found: number;
  false: number;
  missed: number;
  reference_ml: number | null;
  outline_ml: number | null;
}

export function score(reference: Uint8Array, outline: Uint8Array, given: Case): Scores {
  let [found, extra, missed] = [0, 0, 0];
  for (let at = 0; at < outline.length; at++) {
    if (outline[at]! && reference[at]!) found++;
    else if (outline[at]!) extra++;
    else if (reference[at]!) missed++;
  }
  const share = (above: number, below: number) => (below ? decimals(above / below, 4) : null);
  const [row, column, between] = given.place?.spacing ?? [1, 1, 1];
  const ml = (voxels: number) => given.place && decimals((voxels * row * column * between) / 1000, 3);
  return {
    dice: share(2 * found, 2 * found + extra + missed),
    iou: share(found, found + extra + missed),
    hd95: hd95(reference, outline, given.stack, [between, row, column]),
    unit: given.place ? "mm" : "px",
    reference_voxels: found + missed, outline_voxels: found + extra, found, false: extra, missed,
    reference_ml: ml(found + missed), outline_ml: ml(found + extra),
  }; // prettier-ignore
}

type Size = Pick<Stack, "slices" | "height" | "width">;

/** The larger of the two 95th percentiles of the distance from each border voxel of one mask to the border of the other, in 3D. */
export function hd95(a: Uint8Array, b: Uint8Array, size: Size, sides: Triple): number | null {
  const box = boundingBox([a, b], size);
  if (!box || !a.includes(1) || !b.includes(1)) return null;
  const [first, second] = [a, b].map((mask) => border(crop(mask, size, box), box.shape)) as [Uint8Array, Uint8Array];
  const ways = [distances(first, second, box.shape, sides), distances(second, first, box.shape, sides)];
  return decimals(Math.max(...ways.map((way) => percentile((rank) => way[rank]!, way.length, 95))), 3);
}

interface Box {
  low: Triple;
  shape: Triple;
}

function boundingBox(masks: Uint8Array[], { slices, height, width }: Size): Box | null {
  const [low, high]: [Triple, Triple] = [[slices, height, width], [-1, -1, -1]]; // prettier-ignore
  for (let s = 0, at = 0; s < slices; s++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++, at++) {
        if (!masks.some((mask) => mask[at])) continue;
        [s, y, x].forEach((value, n) => {
          low[n] = Math.min(low[n]!, value);
          high[n] = Math.max(high[n]!, value);
        });
      }
    }
  }
  return high[0] < 0 ? null : { low, shape: high.map((value, n) => value - low[n]! + 1) as Triple };
}

function crop(mask: Uint8Array, { height, width }: Size, { low, shape }: Box): Uint8Array {
  const result = new Uint8Array(shape[0] * shape[1] * shape[2]);
  for (let s = 0, to = 0; s < shape[0]; s++) {
    for (let y = 0; y < shape[1]; y++, to += shape[2]) {
      const from = ((low[0] + s) * height + low[1] + y) * width + low[2];
      result.set(mask.subarray(from, from + shape[2]), to);
    }
  }
  return result;
}

/** Voxels of the mask beside the background, or at the edge of the box; across slices where there are several. */
function border(mask: Uint8Array, [slices, height, width]: Triple): Uint8Array {
  const inside = (s: number, y: number, x: number) =>
    s >= 0 && y >= 0 && x >= 0 && s < slices && y < height && x < width && mask[(s * height + y) * width + x] === 1;
  const flat = slices === 1;
  const result = new Uint8Array(mask.length);
  for (let s = 0, at = 0; s < slices; s++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++, at++) {
        if (!mask[at]) continue;
        const around = inside(s, y, x - 1) && inside(s, y, x + 1) && inside(s, y - 1, x) && inside(s, y + 1, x);
        result[at] = around && (flat || (inside(s - 1, y, x) && inside(s + 1, y, x))) ? 0 : 1;
      }
    }
  }
  return result;
}

/** From each voxel of `from` to the nearest of `to`, ascending. */
function distances(from: Uint8Array, to: Uint8Array, shape: Triple, sides: Triple): Float64Array {
  const squared = Float64Array.from(to, (value) => (value ? 0 : Infinity));
  const strides = [shape[1] * shape[2], shape[2], 1];
  for (const axis of [2, 1, 0] as const) {
    for (let at = 0; at < squared.length; at++) {
      if (Math.floor(at / strides[axis]!) % shape[axis] === 0) nearest(squared, at, strides[axis]!, shape[axis], sides[axis] ** 2);
    }
  }
  return squared.filter((_, at) => from[at]).map(Math.sqrt).sort();
}

/** Squared distances along one line (Felzenszwalb and Huttenlocher 2012): the lower envelope of a parabola at each voxel. */
function nearest(squared: Float64Array, first: number, stride: number, count: number, unit: number): void {
  const own = Float64Array.from({ length: count }, (_, n) => squared[first + n * stride]!);
  const [tops, starts]: [number[], number[]] = [[], []];
  own.forEach((height, n) => {
    if (height === Infinity) return;
    let start = -Infinity;
    while (tops.length) {
      const top = tops.at(-1)!;
      start = (height - own[top]! + unit * (n * n - top * top)) / (2 * unit * (n - top));
      if (start > starts.at(-1)!) break;
      tops.pop();
      starts.pop();
      start = -Infinity;
    }
    tops.push(n);
    starts.push(start);
  });
  if (!tops.length) return;
  for (let n = 0, k = 0; n < count; n++) {
    while (k + 1 < tops.length && starts[k + 1]! < n) k++;
    squared[first + n * stride] = unit * (n - tops[k]!) ** 2 + own[tops[k]!]!;
  }
}

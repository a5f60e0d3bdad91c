// What is measured of one slice to tell a head from other pictures: the Python side, brainseg.inference.plausibility, with
// OpenCV's operations written out. All work on planes of SIDE x SIDE.

import { areaPlace, areaWeights } from "./resize";
import { percentile } from "./rounding";
import { FLAIR } from "./voxels";

const SIDE = 128;
const EMPTY = 6; // grey values between air and head: a slice above the head has less
const DIRECTIONS = 32;
const LAYERS = 20; // pixels below the outline at least
const [STRAIGHT, DIAGONAL, KNIGHT] = [1, 1.4, 2.1969]; // distances of OpenCV's 5 x 5 mask
const TILTS = Array.from({ length: 13 }, (_, n) => 4 * n - 24); // degrees by which a head may be tilted

/** The measures of one slice, as the fields of plausibility.SliceMeasures. */
export interface SliceMeasures {
  level: number;
  area: number;
  roughness: number;
  corners: number;
  contact: number;
  length: number;
  oval: number;
  mirror: number;
  ring: number;
  gap: number;
  clipped: number;
  spread: number;
  bone: number;
}

type Plane = Float64Array;
type Box = [top: number, bottom: number, left: number, right: number];

/** Null if nothing is brighter than the noise of air. `picture`: bytes, three channels. */
export function describe(picture: Uint8Array, side: number): SliceMeasures | null {
  const plane = Float64Array.from({ length: side * side }, (_, at) => picture[3 * at + FLAIR]!);
  const box = filledBox(plane, side);
  if (!box) return null;
  const roughness = variance(subtract(plane, blur(plane, side, 1))) / Math.max(variance(plane), 1e-6);
  const small = shrink(plane, side);
  const smooth = blur(small, SIDE, 1.5);
  const air = quantile(cut(smooth, box), 2);
  const split = otsu(smooth);
  const bright = smooth.filter((value) => value > split);
  const level = bright.length ? quantile(bright, 75) - air : 0;
  if (level < EMPTY) return null;
  const least = Math.min(split, air + 0.3 * level);
  const raw = Uint8Array.from(smooth, (value) => Number(value > least));
  const head = findOutline(raw);
  const grey = small.map((value) => value - air);
  const below = findDepth(grey, head);
  return {
    level, area: mean(head), roughness, corners: measureCorners(raw, box), contact: mean(edge(raw)),
    ...measureShape(head), ...measureLayers(grey, below), bone: measureBone(grey, head, below),
  }; // prettier-ignore
}

/** Rows and columns between the first and the last that is not all 0, on the small plane; null if there are too few. */
function filledBox(plane: Plane, side: number): Box | null {
  const rows = new Set<number>();
  const columns = new Set<number>();
  plane.forEach((value, at) => {
    if (!value) return;
    rows.add(Math.floor(at / side));
    columns.add(at % side);
  });
  if (Math.min(rows.size, columns.size) < 8) return null;
  const ends = [rows, columns].flatMap((places) => [Math.floor((Math.min(...places) * SIDE) / side), Math.ceil(((Math.max(...places) + 1) * SIDE) / side)]);
  return ends as Box;
}

function cut<T extends Plane | Uint8Array>(plane: T, [top, bottom, left, right]: Box): T {
  return plane.filter((_, at) => at >= top * SIDE && at < bottom * SIDE && at % SIDE >= left && at % SIDE < right) as T;
}

function subtract(a: Plane, b: Plane): Plane {
  return a.map((value, at) => value - b[at]!);
}

function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let at = 0; at < values.length; at++) sum += values[at]!;
  return sum / values.length;
}

function variance(values: Plane): number {
  const middle = mean(values);
  return mean(values.map((value) => (value - middle) ** 2));
}

function quantile(values: Plane | number[], percent: number): number {
  const sorted = Float64Array.from(values).sort();
  return percentile((rank) => sorted[rank]!, sorted.length, percent);
}

/** A Gaussian as wide as OpenCV takes it for floating-point numbers; the edge is mirrored. */
function blur(plane: Plane, side: number, sigma: number): Plane {
  const reach = (Math.round(sigma * 8 + 1) | 1) >> 1;
  const weights = Array.from({ length: 2 * reach + 1 }, (_, n) => Math.exp(-((n - reach) ** 2) / (2 * sigma ** 2)));
  const whole = weights.reduce((sum, weight) => sum + weight, 0);
  const inside = (n: number) => (n < 0 ? -n : n >= side ? 2 * side - 2 - n : n);
  const along = (from: Plane, step: number, across: number) => {
    const result = new Float64Array(from.length);
    for (let line = 0; line < side; line++) {
      for (let at = 0; at < side; at++) {
        let sum = 0;
        for (let k = -reach; k <= reach; k++) sum += weights[k + reach]! * from[line * across + inside(at + k) * step]!;
        result[line * across + at * step] = sum / whole;
      }
    }
    return result;
  };
  return along(along(plane, 1, side), side, 1);
}

/** To SIDE x SIDE by area, rows and columns in turn. */
function shrink(plane: Plane, side: number): Plane {
  const step = side / SIDE;
  const parts: [to: number, from: number, weight: number][] = [];
  if (step >= 1) {
    const { to, from, weight } = areaWeights(side, SIDE, step);
    to.forEach((n, k) => parts.push([n, from[k]!, weight[k]!]));
  } else {
    for (let n = 0; n < SIDE; n++) {
      const [place, share] = areaPlace(n, step, 1 / step);
      parts.push([n, Math.min(place, side - 1), 1 - share], [n, Math.min(place + 1, side - 1), share]);
    }
  }
  const lines = new Float64Array(side * SIDE);
  for (let y = 0; y < side; y++) for (const [to, from, weight] of parts) lines[y * SIDE + to]! += weight * plane[y * side + from]!;
  const result = new Float64Array(SIDE * SIDE);
  for (const [to, from, weight] of parts) for (let x = 0; x < SIDE; x++) result[to * SIDE + x]! += weight * lines[from * SIDE + x]!;
  return result;
}

/** The grey value that divides a picture into two classes best (Otsu 1979). */
function otsu(plane: Plane): number {
  const counts = new Float64Array(256);
  for (const value of plane) counts[Math.trunc(value)]!++;
  const all = counts.reduce((sum, count, n) => sum + n * count, 0) / plane.length;
  let [best, found, share, before] = [0, 0, 0, 0];
  counts.forEach((count, n) => {
    const own = count / plane.length;
    before = before * share;
    share += own;
    const rest = 1 - share;
    if (Math.min(share, rest) < 1.2e-7 || Math.max(share, rest) > 1 - 1.2e-7) return;
    before = (before + n * own) / share;
    const after = (all - share * before) / rest;
    const apart = share * rest * (before - after) ** 2;
    if (apart > best) [best, found] = [apart, n];
  });
  return found;
}

/** The largest part of a mask with gaps closed and holes filled. */
function findOutline(raw: Uint8Array): Uint8Array {
  const closed = morph(morph(raw, 1), 0);
  const outside = flood(closed.map((value) => 1 - value), edgePlaces(), false);
  const filled = outside.map((value) => 1 - value);
  let largest: Uint8Array = new Uint8Array(raw.length);
  let most = 0;
  const seen = new Uint8Array(raw.length);
  for (let at = 0; at < filled.length; at++) {
    if (!filled[at] || seen[at]) continue;
    const part = flood(filled, [at], true);
    let size = 0;
    part.forEach((value, n) => {
      size += value;
      seen[n] = seen[n]! | value;
    });
    if (size > most) [largest, most] = [part, size];
  }
  return largest;
}

/** The mask grown (`wanted` 1) or shrunk (0) by two pixels in all directions; the edge of the picture neither adds nor takes. */
function morph(mask: Uint8Array, wanted: 0 | 1): Uint8Array {
  const along = (from: Uint8Array, step: number) =>
    from.map((value, at) => {
      const place = Math.floor(at / step) % SIDE;
      for (let k = -2; k <= 2; k++) if (place + k >= 0 && place + k < SIDE && from[at + k * step] === wanted) return wanted;
      return value;
    });
  return along(along(mask, 1), SIDE);
}

function edgePlaces(): number[] {
  return Array.from({ length: SIDE }, (_, n) => [n, (SIDE - 1) * SIDE + n, n * SIDE, n * SIDE + SIDE - 1]).flat();
}

function edge(mask: Uint8Array): number[] {
  return edgePlaces().map((at) => mask[at]!);
}

/** The part of a mask that hangs together with some places; over corners too, or not. */
function flood(mask: Uint8Array, starts: number[], corners: boolean): Uint8Array {
  const reached = new Uint8Array(mask.length);
  const waiting = starts.filter((at) => mask[at]);
  waiting.forEach((at) => (reached[at] = 1));
  for (let at = waiting.pop(); at !== undefined; at = waiting.pop()) {
    const [y, x] = [Math.floor(at / SIDE), at % SIDE];
    for (let down = -1; down <= 1; down++) {
      for (let across = -1; across <= 1; across++) {
        if (!corners && down && across) continue;
        const [row, column] = [y + down, x + across];
        const next = row * SIDE + column;
        if (row < 0 || column < 0 || row >= SIDE || column >= SIDE || !mask[next] || reached[next]) continue;
        reached[next] = 1;
        waiting.push(next);
      }
    }
  }
  return reached;
}

/** The share of the four corners, which an ellipse leaves free, that is as bright as a head. */
function measureCorners(raw: Uint8Array, [top, bottom, left, right]: Box): number {
  const [height, width] = [bottom - top, right - left].map((side) => Math.max(1, Math.floor((side * 15) / 100))) as [number, number];
  const [rows, columns] = [[top, bottom - height], [left, right - width]] as const; // prettier-ignore
  return mean(rows.flatMap((row) => columns.map((column) => mean(cut(raw, [row, row + height, column, column + width])))));
}

/** Length over width, overlap with the ellipse of the same moments, and with the best mirror image. */
function measureShape(head: Uint8Array): Pick<SliceMeasures, "length" | "oval" | "mirror"> {
  let [count, x, y] = [0, 0, 0];
  head.forEach((value, at) => {
    if (value) [count, x, y] = [count + 1, x + (at % SIDE), y + Math.floor(at / SIDE)];
  });
  [x, y] = [x / count, y / count];
  let [xx, yy, xy] = [1 / 12, 1 / 12, 0]; // the extent of a pixel: never 0
  head.forEach((value, at) => {
    const [u, v] = [(at % SIDE) - x, Math.floor(at / SIDE) - y];
    if (value) [xx, yy, xy] = [xx + (u * u) / count, yy + (v * v) / count, xy + (u * v) / count];
  });
  const ellipse = head.map((_, at) => {
    const [u, v] = [(at % SIDE) - x, Math.floor(at / SIDE) - y];
    return Number((yy * u * u - 2 * xy * u * v + xx * v * v) / (xx * yy - xy * xy) < 4);
  });
  const mirror = Math.max(...TILTS.map((tilt) => overlap(head, reflect(head, x, y, (2 * tilt * Math.PI) / 180))));
  return { length: Math.sqrt(yy / xx), oval: overlap(head, ellipse), mirror };
}

/** The mirror image at the axis through (x, y) that is tilted by half of `angle`. */
function reflect(head: Uint8Array, x: number, y: number, angle: number): Uint8Array {
  const [c, s] = [Math.cos(angle), Math.sin(angle)];
  return head.map((_, at) => {
    const [u, v] = [at % SIDE, Math.floor(at / SIDE)];
    const [column, row] = [Math.round(-c * u - s * v + x + c * x + s * y), Math.round(-s * u + c * v + y + s * x - c * y)];
    return column >= 0 && row >= 0 && column < SIDE && row < SIDE ? head[row * SIDE + column]! : 0;
  });
}

function overlap(a: Uint8Array, b: Uint8Array): number {
  let [both, any] = [0, 0];
  a.forEach((value, at) => {
    both += value & b[at]!;
    any += value | b[at]!;
  });
  return both / Math.max(any, 1);
}

interface Below {
  depth: Plane; // of each pixel below the outline
  deepest: number;
  inside: number; // brightness there
}

function findDepth(grey: Plane, head: Uint8Array): Below {
  const depth = distanceInside(head);
  const deepest = Math.max(...depth);
  return { depth, deepest, inside: Math.max(quantile(grey.filter((_, at) => depth[at]! > 0.3 * deepest), 50), 1) };
}

/** OpenCV's DIST_L2 with a mask of 5 x 5: two passes over a plane with two rows and columns around it. */
function distanceInside(head: Uint8Array): Plane {
  const wide = SIDE + 6;
  const plane = new Float64Array(wide * wide).fill(Infinity);
  for (let y = -1; y <= SIDE; y++) {
    for (let x = -1; x <= SIDE; x++) {
      const within = x >= 0 && y >= 0 && x < SIDE && y < SIDE;
      if (!within || !head[y * SIDE + x]) plane[(y + 3) * wide + x + 3] = 0;
    }
  }
  const steps: [number, number][] = [
    [-2 * wide - 1, KNIGHT], [-2 * wide + 1, KNIGHT], [-wide - 2, KNIGHT], [-wide + 2, KNIGHT],
    [-wide - 1, DIAGONAL], [-wide + 1, DIAGONAL], [-wide, STRAIGHT], [-1, STRAIGHT],
  ]; // prettier-ignore
  const visit = (at: number, sign: number) => {
    for (const [step, far] of steps) plane[at] = Math.min(plane[at]!, plane[at + sign * step]! + far);
  };
  for (let y = 2; y < wide - 2; y++) for (let x = 2; x < wide - 2; x++) visit(y * wide + x, 1);
  for (let y = wide - 3; y >= 2; y--) for (let x = wide - 3; x >= 2; x--) visit(y * wide + x, -1);
  return Float64Array.from({ length: SIDE * SIDE }, (_, at) => plane[(Math.floor(at / SIDE) + 3) * wide + (at % SIDE) + 3]!);
}

/** From layers one pixel thick: the brightest, the darkest below it, how much of it is at the maximum; the spread inside. */
function measureLayers(grey: Plane, { depth, deepest, inside }: Below): Pick<SliceMeasures, "ring" | "gap" | "clipped" | "spread"> {
  const core = grey.filter((_, at) => depth[at]! > 0.45 * deepest);
  const layers = Array.from({ length: Math.max(Math.floor(0.4 * deepest), 1) }, (_, k) => grey.filter((_, at) => depth[at]! > k && depth[at]! <= k + 1));
  const medians = layers.map((layer) => quantile(layer, 50));
  const brightest = medians.indexOf(Math.max(...medians));
  const most = 0.93 * Math.max(...grey);
  return {
    ring: medians[brightest]! / inside,
    gap: Math.min(...medians.slice(brightest), inside) / inside,
    clipped: mean(layers[brightest]!.map((value) => Number(value > most))),
    spread: (quantile(core, 85) - quantile(core, 15)) / inside,
  };
}

/** In each direction from the centre, the deepest fall between a brighter layer outside and one inside; the median of these. */
function measureBone(grey: Plane, head: Uint8Array, { depth, deepest, inside }: Below): number {
  const layers = Math.max(Math.floor(0.5 * deepest), LAYERS);
  let [count, y, x] = [0, 0, 0];
  head.forEach((value, at) => {
    if (value) [count, y, x] = [count + 1, y + Math.floor(at / SIDE), x + (at % SIDE)];
  });
  const sums = new Float64Array(DIRECTIONS * layers);
  const counts = new Float64Array(DIRECTIONS * layers);
  depth.forEach((deep, at) => {
    if (!(deep > 0 && deep <= layers)) return;
    const turn = (Math.atan2(Math.floor(at / SIDE) - y / count, (at % SIDE) - x / count) / (2 * Math.PI)) * DIRECTIONS;
    const cell = ((Math.trunc(turn) + DIRECTIONS) % DIRECTIONS) * layers + Math.ceil(deep) - 1;
    sums[cell]! += grey[at]!;
    counts[cell]!++;
  });
  const means = sums.map((sum, cell) => (counts[cell] ? sum / (counts[cell]! * inside) : NaN));
  const falls = Array.from({ length: DIRECTIONS }, (_, n) => deepestFall(means.subarray(n * layers, (n + 1) * layers)));
  return quantile(falls, 50);
}

/** Layers without a pixel are NaN and count for nothing. */
function deepestFall(means: Plane): number {
  const highest = (values: Plane) => values.reduce((most, value) => (value > most || Number.isNaN(most) ? value : most), NaN);
  let deepest = -Infinity;
  means.forEach((own, n) => {
    const [outside, within] = [highest(means.subarray(0, n + 1)), highest(means.subarray(n))];
    const fall = Math.min(outside, within, 1) - own;
    deepest = Math.max(deepest, Number.isNaN(fall) ? 0 : fall);
  });
  return deepest;
}

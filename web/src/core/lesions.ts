// The lesions of an outline: its parts, joined by faces, the largest first. The Python side: brainseg.inference.answers.lesions.

import { components, runs } from "./components";
import { axialAffine, transform, voxelAt } from "./orientation";
import { decimals } from "./rounding";
import type { Place, Stack, Triple } from "./voxels";

export const MOST = 1000; // a low threshold on noise finds many more

/** In the order of the columns of lesions.csv; null is what is not known. */
export interface Lesion {
  lesion: number;
  voxels: number;
  volume_ml: number | null;
  area_mm2: number | null;
  extent_x_mm: number | null;
  extent_y_mm: number | null;
  extent_z_mm: number | null;
  max_diameter_mm: number | null;
  centroid_i: number;
  centroid_j: number;
  centroid_k: number;
  centroid_x_mm: number | null;
  centroid_y_mm: number | null;
  centroid_z_mm: number | null;
  first_slice: number;
  last_slice: number;
  largest_slice: number;
  mean_probability: number;
  max_probability: number;
}

type Size = Pick<Stack, "slices" | "height" | "width">;

/** What is gathered of a part in one pass over the voxels. */
interface Part {
  voxels: number;
  sums: Triple; // of slices, rows, columns
  low: Triple;
  high: Triple;
  levels: number;
  highest: number;
  pixels: Map<number, number>; // by slice
  edges: Map<number, Map<number, [number, number]>>; // by slice and row: the first column and the one past the last
}

/** `numbers`: of the slices; those with a gap between them are no neighbours. Answers count slices from 1. */
export function findLesions(mask: Uint8Array, levels: Uint8Array, size: Size, numbers: readonly number[], place: Place | null): Lesion[] {
  const parts = gather(mask, levels, size, numbers);
  const first = (part: Part) => part.low[0];
  parts.sort((a, b) => b.voxels - a.voxels || first(a) - first(b));
  return parts.slice(0, MOST).map((part, n) => describe(part, n + 1, place));
}

function gather(mask: Uint8Array, levels: Uint8Array, size: Size, numbers: readonly number[]): Part[] {
  const { height, width } = size;
  const area = height * width;
  const all: Part[] = [];
  for (const [first, end] of runs(numbers)) {
    const { labels, counts } = components(mask.subarray(first * area, end * area), end - first, height, width);
    const own = counts.slice(1).map(emptyPart);
    for (let at = 0; at < labels.length; at++) {
      if (!labels[at]) continue;
      const rest = at % area;
      extend(own[labels[at]! - 1]!, [first + Math.floor(at / area), Math.floor(rest / width), rest % width], levels[first * area + at]!);
    }
    all.push(...own);
  }
  return all;
}

function emptyPart(): Part {
  return {
    voxels: 0, sums: [0, 0, 0], low: [Infinity, Infinity, Infinity], high: [0, 0, 0], levels: 0, highest: 0,
    pixels: new Map(), edges: new Map(),
  }; // prettier-ignore
}

function extend(part: Part, at: Triple, level: number): void {
  part.voxels++;
  part.levels += level;
  part.highest = Math.max(part.highest, level);
  for (const n of [0, 1, 2] as const) {
    part.sums[n] += at[n];
    part.low[n] = Math.min(part.low[n], at[n]);
    part.high[n] = Math.max(part.high[n], at[n]);
  }
  const [slice, row, column] = at;
  part.pixels.set(slice, (part.pixels.get(slice) ?? 0) + 1);
  let rows = part.edges.get(slice);
  if (!rows) part.edges.set(slice, (rows = new Map()));
  const edge = rows.get(row);
  if (edge) edge[1] = column + 1;
  else rows.set(row, [column, column + 1]);
}

function describe(part: Part, number: number, place: Place | null): Lesion {
  const centre = part.sums.map((sum) => sum / part.voxels) as Triple;
  const most = Math.max(...part.pixels.values());
  const largest = [...part.pixels].filter(([, pixels]) => pixels === most).map(([slice]) => slice);
  const point = place && transform(axialAffine(place.geometry), centre);
  const centroid = place ? voxelAt(place.geometry.affine, point!) : [centre[2], centre[1], centre[0]];
  const [row, column, between] = place?.spacing ?? [0, 0, 0];
  const known = (value: number, digits = 1) => (place ? decimals(value, digits) : null);
  const extent = (axis: 0 | 1 | 2, side: number) => known((part.high[axis] - part.low[axis] + 1) * side);
  const tidy = (value: number) => decimals(value, 1) + 0; // no minus zero
  return {
    lesion: number,
    voxels: part.voxels,
    volume_ml: known((part.voxels * row * column * between) / 1000, 3),
    area_mm2: known(most * row * column),
    extent_x_mm: extent(2, column),
    extent_y_mm: extent(1, row),
    extent_z_mm: extent(0, between),
    max_diameter_mm: known(Math.max(...[...part.edges.values()].map((rows) => diameter(rows, row, column)))),
    centroid_i: tidy(centroid[0]!),
    centroid_j: tidy(centroid[1]!),
    centroid_k: tidy(centroid[2]!),
    centroid_x_mm: point && tidy(point[0]),
    centroid_y_mm: point && tidy(point[1]),
    centroid_z_mm: point && tidy(point[2]),
    first_slice: part.low[0] + 1,
    last_slice: part.high[0] + 1,
    largest_slice: Math.min(...largest) + 1,
    mean_probability: decimals(part.levels / part.voxels / 255, 3),
    max_probability: decimals(part.highest / 255, 3),
  };
}

/** The longest line between outer edges of the pixels of one slice, in mm. */
function diameter(rows: Map<number, [number, number]>, row: number, column: number): number {
  const corners: [number, number][] = [];
  for (const [y, [left, right]] of rows) {
    for (const down of [y, y + 1]) corners.push([left * column, down * row], [right * column, down * row]);
  }
  const hull = convexHull(corners);
  let longest = 0;
  for (const a of hull) for (const b of hull) longest = Math.max(longest, Math.hypot(a[0] - b[0], a[1] - b[1]));
  return longest;
}

/** The outer points (Andrew's monotone chain): the two that are farthest apart are among them. */
function convexHull(points: [number, number][]): [number, number][] {
  const sorted = [...points].sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const half = (ordered: [number, number][]) => {
    const kept: [number, number][] = [];
    for (const point of ordered) {
      while (kept.length > 1 && turn(kept.at(-2)!, kept.at(-1)!, point) <= 0) kept.pop();
      kept.push(point);
    }
    return kept;
  };
  return [...half(sorted), ...half(sorted.reverse())];
}

function turn(a: [number, number], b: [number, number], c: [number, number]): number {
  return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
}

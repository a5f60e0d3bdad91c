// From probabilities on the model's grid to a mask: a threshold, then small parts removed. The Python side:
// brainseg.inference.postprocessing, chosen_rule, and the last lines of Outliner.segment.

import { removeSmall, runs } from "./components";
import { fromGrid, type Pixel } from "./grid";
import type { Facts } from "./modelFile";
import { rint } from "./rounding";

const LOWEST = 1 / 255; // probabilities are 255ths: below, what is certainly no tumour would be tumour too

/** A threshold and a smallest part that a person chose in place of the model's own. */
export interface Choice {
  threshold?: number;
  min_component?: number;
}

export interface Rule {
  threshold: number;
  min_component: number;
  min_share: number;
  ofTheModel: boolean;
  cleansSingleSlices: boolean; // small parts go from slices without neighbours too
  remarks: string[];
}

export function chooseRule({ rule: own }: Facts, choice: Choice): Rule {
  const threshold = choice.threshold ?? own.threshold;
  const smallest = choice.min_component ?? own.min_component;
  const min_share = choice.min_component === undefined ? (own.min_share ?? 0) : 0; // the chosen size stands in the place of both
  const remarks: string[] = [];
  if (threshold !== own.threshold) remarks.push(`threshold ${short(threshold)} (the model's: ${short(own.threshold)})`);
  if (choice.min_component !== undefined) {
    remarks.push(`smallest component ${smallest} voxels, in single slices too (the model's: ${own.min_component}, in volumes alone)`);
  }
  const cleansSingleSlices = choice.min_component !== undefined;
  return { threshold, min_component: smallest, min_share, ofTheModel: !remarks.length, cleansSingleSlices, remarks };
}

/** The smallest probability in 255ths that counts as tumour. */
export function level(threshold: number): number {
  return Math.ceil(rint(255 * Math.max(threshold, LOWEST) * 1e9) / 1e9);
}

/** Probabilities of slices on the grid, in 255ths. */
export interface OnGrid {
  levels: Uint8Array;
  side: number;
  numbers: readonly number[];
}

/** The mask on the slices' own grid, 0 and 1. */
export function binarise(given: OnGrid, rule: Rule, size: { width: number; height: number; pixel: Pixel }): Uint8Array {
  const least = level(rule.threshold);
  const area = given.side * given.side;
  const kept = given.levels.slice();
  for (const [first, end] of runs(given.numbers)) {
    if (end - first < 2 && !rule.cleansSingleSlices) continue;
    const mask = Uint8Array.from(given.levels.subarray(first * area, end * area), (value) => Number(value >= least));
    const volume = { slices: end - first, height: given.side, width: given.side };
    const clean = removeSmall(mask, volume, rule.min_component, rule.min_share);
    for (let at = 0; at < mask.length; at++) if (mask[at] && !clean[at]) kept[first * area + at] = 0;
  }
  const result = new Uint8Array(given.numbers.length * size.width * size.height);
  given.numbers.forEach((_, s) => {
    const own = fromGrid(kept.subarray(s * area, (s + 1) * area), given.side, size.width, size.height, size.pixel);
    result.set(own.map((value) => Number(value >= least)), s * own.length);
  });
  return result;
}

/** A number with six digits at most, as Python's :g. */
function short(value: number): string {
  return String(Number(value.toPrecision(6)));
}

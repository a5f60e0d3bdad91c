// The tables that are saved: lesions as `brainseg predict` writes them, slices, and what each line must be read with.

import { DISCLAIMER } from "./core/answer";
import type { SliceFacts } from "./core/measure";
import type { Lesion } from "./engines/types";

/** What stands in every line. */
export interface Told {
  name: string; // of the case
  model: string; // digest of its weights
  edited: number; // voxels
}

export function lesionTable(told: Told, lesions: Lesion[]): string {
  const columns = Object.keys(lesions[0] ?? {}) as (keyof Lesion)[];
  const cell = (column: keyof Lesion, value: number | null) => (value === null ? "" : value.toFixed(digits(column)));
  return table(told, columns, lesions.map((lesion) => columns.map((column) => cell(column, lesion[column])))); // prettier-ignore
}

export function sliceTable(told: Told, slices: SliceFacts[], numbers: number[]): string {
  const columns = ["slice", "pixels", "area_mm2", "mean_probability"];
  const cell = (value: number | null, places: number) => (value === null ? "" : value.toFixed(places));
  return table(told, columns, slices.map((slice, n) => [String(numbers[n]), String(slice.pixels), cell(slice.area_mm2, 1), cell(slice.mean_probability, 3)])); // prettier-ignore
}

/** Lines of cells; the first is the names of the columns. */
export function csv(lines: string[][]): string {
  return lines.map((line) => `${line.map(quoted).join(",")}\n`).join("");
}

function table({ name, model, edited }: Told, columns: string[], rows: string[][]): string {
  const after = [model, edited ? `edited by hand (${edited} voxels)` : "as the model made it", DISCLAIMER];
  return csv([["case", ...columns, "model", "mask", "use"], ...rows.map((row) => [name, ...row, ...after])]);
}

/** A cell that a spreadsheet takes for text: no formula, unless it is a number. */
function quoted(text: string): string {
  const plain = Number.isNaN(Number(text)) ? text.replace(/^[-=+@]/, "./$&") : text;
  return /[",\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
}

function digits(column: string): number {
  if (/_ml$|probability/.test(column)) return 3;
  return /_mm2?$|^centroid/.test(column) ? 1 : 0;
}

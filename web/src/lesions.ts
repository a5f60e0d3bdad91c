// The lesions of an answer: a table whose rows lead to their slices, and the same as CSV.

import type { Lesion } from "./engines/types";
import { element, measured, number, percent, show, words } from "./page";

/** Fill the table; `jump` is told the slice of a row that is chosen. */
export function present(lesions: Lesion[], slices: number, jump: (slice: number) => void): void {
  show("lesions", lesions.length > 0);
  show("save-lesions", lesions.length > 0);
  element("lesions-title").textContent = lesions.length === 1 ? "1 lesion" : `${number(lesions.length)} lesions`;
  element("lesions").querySelector("tbody")!.replaceChildren(...lesions.map((lesion) => row(lesion, slices, jump)));
}

/** Mark the lesions that the slice on the page cuts. */
export function at(slice: number): void {
  document.querySelectorAll<HTMLElement>("#lesions tbody tr").forEach((row) => {
    row.classList.toggle("now", Number(row.dataset.first) <= slice && slice <= Number(row.dataset.last));
  });
}

function row(lesion: Lesion, slices: number, jump: (slice: number) => void): HTMLElement {
  const made = document.createElement("tr");
  made.dataset.first = String(lesion.first_slice);
  made.dataset.last = String(lesion.last_slice);
  const button = words("button", String(lesion.lesion)) as HTMLButtonElement;
  button.type = "button";
  if (slices > 1) button.setAttribute("aria-label", `Lesion ${lesion.lesion}, go to slice ${lesion.largest_slice}`);
  const head = document.createElement("th");
  head.scope = "row";
  head.append(button);
  const cells = [size(lesion, slices), longest(lesion), range(lesion), percent(lesion.mean_probability)];
  made.append(head, ...cells.map((text) => words("td", text)));
  made.addEventListener("click", () => jump(lesion.largest_slice)); // the button's own clicks come here too
  return made;
}

function size(lesion: Lesion, slices: number): string {
  if (slices > 1 && lesion.volume_ml !== null) return `${measured(lesion.volume_ml)} ml`;
  if (slices === 1 && lesion.area_mm2 !== null) return `${measured(lesion.area_mm2)} mm²`;
  return `${number(lesion.voxels)} px`;
}

function longest(lesion: Lesion): string {
  return lesion.max_diameter_mm === null ? "–" : `${number(lesion.max_diameter_mm)} mm`;
}

function range(lesion: Lesion): string {
  const { first_slice: first, last_slice: last } = lesion;
  return first === last ? String(first) : `${first}–${last}`;
}

// The answer in words and numbers.

import type { Summary } from "./core/measure";
import { announce, element, list, measured, number, percent, sentence, show, words } from "./page";
import { edited, on, state } from "./state";

const KINDS = { picture: "Picture", slices: "Numbered slices", tif: "TIF", nifti: "NIfTI", nrrd: "NRRD", metaimage: "MetaImage", mgh: "MGH", dicom: "DICOM" };

export function start(): void {
  on("opened", opened);
  on("mask", () => {
    if (state.shown) count();
  });
}

/** The answer in one line. */
export function verdict(): string {
  const { summary, slices } = state.shown!.numbers;
  if (!summary.tumour_pixels) return "No tumour outlined";
  return slices.length === 1 ? "Tumour outlined" : `Tumour outlined in ${summary.slices_with_tumour} of ${slices.length} slices`;
}

/** Names and values of the numbers: volume, area, output of the network. */
export function numbers(summary: Summary, slices: number): [string, string, string?][] {
  const rows: [string, string, string?][] = [];
  if (!summary.tumour_pixels) return rows;
  const of = slices > 1 && summary.largest_slice ? `slice ${summary.largest_slice}` : "";
  if (summary.volume_ml !== null) rows.push(["Volume", `${measured(summary.volume_ml)} ml`]);
  if (summary.area_mm2 !== null) rows.push([of ? "Largest area" : "Area", `${measured(summary.area_mm2)} mm²`, of]);
  else rows.push([of ? "Largest area" : "Area", `${number(summary.area_pixels)} px`, of]);
  if (summary.mean_probability !== null) rows.push(["Network's output", percent(summary.mean_probability), "mean inside the outline; not the chance that this is a tumour"]);
  return rows;
}

function opened(): void {
  const { shown } = state;
  warn(shown?.result.answer.warnings ?? []);
  if (!shown) {
    for (const id of ["verdict", "name", "file-name", "file-facts", "corner-slice", "reading"]) element(id).textContent = "";
    element("numbers").replaceChildren();
    return;
  }
  const { input } = shown.result.answer;
  element("file-name").textContent = element("name").textContent = element("name").title = shown.given.name;
  const facts = [
    `${KINDS[input.kind]}, ${input.width} × ${input.height}` + (input.slices > 1 ? ` × ${input.slices}` : ""),
    input.spacing_mm ? `${input.spacing_mm.map((mm) => number(mm, 2)).join(" × ")} mm` : "pixel size unknown",
  ];
  if (shown.given.credit) facts.push(shown.given.credit);
  element("file-facts").replaceChildren(...facts.map((fact) => words("span", fact)));
  count();
  const { warnings } = shown.result.answer;
  const told = [...element("numbers").children].slice(0, 4).map((part) => part.firstChild?.textContent).join(" "); // prettier-ignore
  announce(`${verdict()}. ${told}.${warnings.length ? ` Warning: ${warnings.join(" ")}` : ""}`);
}

/** What a mask's numbers are now. */
function count(): void {
  const { result, numbers: own } = state.shown!;
  const { input, summary } = result.answer;
  element("verdict").textContent = verdict();
  element("verdict").classList.toggle("faint", !own.summary.tumour_pixels && result.answer.warnings.length > 0);
  const names = [...new Set(input.channels)];
  const sequences: [string, string, string?] = names.length === 1 ? ["Sequences", `taken as ${names[0]}`] : ["Sequences", `${names.length} of 3`, names.join(", ")];
  const where = result.where === "server" ? "on the server" : "on this computer";
  list("numbers", [...numbers(own.summary, own.slices.length), sequences, ["Time", `${number(summary.seconds, 2)} s`, where]]);
  show("jumps", own.summary.tumour_pixels > 0 && input.slices > 1);
  const changed = edited();
  element("edited").textContent = `Edited by hand: ${number(changed)} ${changed === 1 ? "voxel" : "voxels"} changed`;
  show("edited", changed > 0);
  warn(result.answer.warnings);
}

function warn(warnings: string[]): void {
  const box = element("warnings");
  const told = warnings.join("|");
  if (box.dataset.told === told) return; // it is an alert: only what is new is said
  box.dataset.told = told;
  box.replaceChildren();
  if (!warnings.length) return;
  box.append(words("strong", "Be careful with this answer"));
  const ul = document.createElement("ul");
  ul.append(...warnings.map((text) => words("li", sentence(text))));
  box.append(ul);
}

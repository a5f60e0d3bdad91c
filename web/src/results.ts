// The answer in words and numbers.

import type { Answer, SliceFacts } from "./api";
import { area } from "./bars";
import { announce, element, list, measured, number, percent, sentence, show, words } from "./page";

const KINDS = { picture: "Picture", tif: "TIF", nifti: "NIfTI", nrrd: "NRRD", metaimage: "MetaImage", mgh: "MGH", dicom: "DICOM" };

export function present(answer: Answer, name: string): void {
  const { summary, input } = answer;
  const found = summary.tumour_pixels > 0;
  const verdict = !found
    ? "No tumour outlined"
    : input.slices === 1
      ? "Tumour outlined"
      : `Tumour outlined in ${summary.slices_with_tumour} of ${input.slices} slices`;
  element("verdict").textContent = verdict;
  element("file-name").textContent = element("name").textContent = name;
  const facts = [
    `${KINDS[input.kind]}, ${input.width} × ${input.height}` + (input.slices > 1 ? ` × ${input.slices}` : ""),
    input.spacing_mm ? `${input.spacing_mm.map((mm) => number(mm, 2)).join(" × ")} mm` : "pixel size unknown",
  ];
  element("file-facts").replaceChildren(...facts.map((fact) => words("span", fact)));
  const rows: [string, string, string?][] = [];
  if (found) {
    const of = input.slices > 1 && summary.largest_slice ? `slice ${summary.largest_slice}` : "";
    if (summary.volume_ml !== null) rows.push(["Volume", `${measured(summary.volume_ml)} ml`]);
    if (summary.area_mm2 !== null) rows.push([of ? "Largest area" : "Area", `${measured(summary.area_mm2)} mm²`, of]);
    else rows.push([of ? "Largest area" : "Area", `${number(summary.area_pixels)} px`, of]);
    if (summary.mean_probability !== null) rows.push(["Mean probability", percent(summary.mean_probability), "inside the outline"]);
  }
  const names = [...new Set(input.channels)];
  rows.push(names.length === 1 ? ["Sequences", `taken as ${names[0]}`] : ["Sequences", `${names.length} of 3`, names.join(", ")]);
  rows.push(["Time", `${number(summary.seconds, 2)} s`]);
  list("numbers", rows);
  show("save-seg", answer.seg === true);
  show("jumps", found && input.slices > 1);
  const warned = answer.warnings.length ? ` Warning: ${answer.warnings.join(" ")}` : "";
  announce(`${verdict}. ${rows.slice(0, 2).map(([label, value]) => `${label} ${value}`).join(", ")}.${warned}`);
}

export function warn(warnings: string[]): void {
  const box = element("warnings");
  box.replaceChildren();
  if (!warnings.length) return;
  box.append(words("strong", "Be careful with this answer"));
  const ul = document.createElement("ul");
  ul.append(...warnings.map((text) => words("li", sentence(text))));
  box.append(ul);
}

/** What a sighted person sees of one slice, for everybody else. */
export function described(slice: SliceFacts, slices: number, sides: string): string {
  return `Slice ${slice.slice} of ${slices}, ${area(slice)}. ${sides}`;
}

// What can be taken along: all of it is made here, from what is on the page.

import * as api from "./api";
import { area } from "./bars";
import { DISCLAIMER } from "./core/answer";
import { writeNifti } from "./core/niftiFile";
import { Refusal } from "./core/refusal";
import { letters } from "./display";
import type { Answer } from "./engines/types";
import { click, download, element, sentence, show } from "./page";
import { print } from "./report";
import * as slices from "./slices";
import { edited, on, state, stem } from "./state";
import { lesionTable, sliceTable, type Told } from "./tables";

export function start(): void {
  click("save-mask", () => void saveMask());
  click("save-probability", () => void saveProbability());
  click("save-lesions", () => save(text(lesionTable(told(), state.shown!.numbers.lesions)), `${base()}-lesions.csv`, "Table of lesions"));
  click("save-slices", () => save(text(sliceTable(told(), state.shown!.numbers.slices, state.shown!.result.numbers)), `${base()}-slices.csv`, "Table of slices"));
  click("save-overlay", saveOverlay);
  click("save-seg", () => void saveSeg());
  click("report-print", () => {
    print();
    state.unsaved = false;
  });
  for (const change of ["opened", "mask"] as const) on(change, offer);
}

/** Names say it where a person changed the mask. */
function base(): string {
  return stem() + (edited() ? "-edited" : "");
}

function offer(): void {
  const { shown } = state;
  if (!shown) return;
  show("save-lesions", shown.numbers.lesions.length > 0);
  const { answer, where } = shown.result;
  show("save-seg", answer.seg && (where === "here" || edited() === 0)); // the server makes it of its own mask
}

function told(): Told {
  const { result } = state.shown!;
  return { name: stem(), model: result.answer.model.weights_sha256, edited: edited() };
}

/** In the header of a file: 79 letters at most. */
function description(what: string): string {
  const { weights_sha256 } = state.shown!.result.answer.model;
  return `brainseg ${what}${edited() ? ", edited" : ""}; model ${weights_sha256.slice(0, 12)}; research use only`;
}

export async function saveMask(): Promise<void> {
  const { result, editor } = state.shown!;
  const bytes = await writeNifti(editor.mask, result.image, result.place?.geometry ?? null, description("mask"));
  save(new Blob([bytes as BlobPart]), `${base()}-mask.nii.gz`, "Mask");
}

async function saveProbability(): Promise<void> {
  const { result } = state.shown!;
  const values = Float32Array.from(result.probability, (level) => level / 255);
  const bytes = await writeNifti(values, result.image, result.place?.geometry ?? null, description("probability"));
  save(new Blob([bytes as BlobPart]), `${stem()}-probability.nii.gz`, "Map of probabilities");
}

function saveOverlay(): void {
  const { shown, viewer } = state;
  if (!shown || !viewer) return;
  const slice = slices.at()[0] + 1;
  const side = element("corner-side").textContent ?? "";
  const lines = [
    `${DISCLAIMER}  ${side}.  Model ${shown.result.answer.model.weights_sha256.slice(0, 12)}`,
    `Slice ${slice} of ${shown.result.image.slices}, ${area(shown.numbers.slices[slice - 1]!)}, outlined by brainseg${edited() ? ", edited by hand" : ""}`,
  ];
  viewer.picture(letters(), lines).toBlob((blob) => blob && save(blob, `${base()}-slice-${slice}.png`, "Picture"), "image/png");
}

/** Where the server read the series it makes the file too, and is sent the series again. */
async function saveSeg(): Promise<void> {
  const { given, result, editor } = state.shown!;
  const note = element("download-note");
  note.textContent = "Making the DICOM SEG…";
  const parameters = algorithm(result.answer);
  const make = async () => new Blob([(await state.engine!.seg(editor.mask, { parameters, edited: edited() > 0 })) as BlobPart], { type: "application/dicom" });
  try {
    save(await (result.where === "here" ? make() : api.seg(given, new AbortController().signal)), `${base()}-seg.dcm`, "DICOM SEG");
  } catch (error) {
    if (state.shown?.given === given) note.textContent = error instanceof Refusal ? `${sentence(error.what)} ${sentence(error.fix)}` : String(error);
  }
}

/** What a DICOM SEG says of how it was made. */
export function algorithm({ model, rule }: Answer): Record<string, string> {
  const { threshold, min_component, min_share } = rule;
  return {
    weights_sha256: model.weights_sha256,
    variant: model.variant,
    threshold: String(threshold),
    min_component: String(min_component),
    min_share: String(min_share),
  };
}

function text(content: string): Blob {
  return new Blob([content], { type: "text/csv" });
}

function save(blob: Blob, name: string, what: string): void {
  download(blob, name);
  state.unsaved = false;
  element("download-note").textContent = `${what} saved.`;
}

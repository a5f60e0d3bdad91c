// One DICOM slice: its header, checked. The Python side: brainseg.io.dicom.slice_header. dcmjs parses the file.

import { data as dcmjs } from "dcmjs";

import { Refusal } from "./refusal";
import type { Triple } from "./voxels";

export const IMPLICIT = "1.2.840.10008.1.2";
export const EXPLICIT = "1.2.840.10008.1.2.1";
const DEFLATED = "1.2.840.10008.1.2.1.99";
const PLAIN = [IMPLICIT, EXPLICIT, DEFLATED];
export const EXPORT = "Export the series again";
const RESTORE = "Restore it, or export the series again";
const ROUNDING = 2e-3; // how far cosines may be from those of perpendicular directions
const LARGEST = 1e12; // limit of all numbers in a header
const PREAMBLE = 128;
const PLANAR = /^1\.2\.840\.10008\.5\.1\.4\.1\.1\.(4|2|128)(\.\d+)*$/; // MR, CT, PET images

type Element = { vr: string; Value: unknown[]; _rawValue?: unknown };
export type Dataset = Record<string, Element | undefined>;

export interface SliceHeader {
  name: string; // of the file
  dataset: Dataset;
  syntax: string;
  series: string;
  size: [rows: number, columns: number];
  inverted: boolean;
  allocated: number;
  stored: number;
  signed: boolean;
  axes: number[]; // direction along a row, then along a column, LPS
  pixel: [number, number]; // mm between rows, between columns
  position: Triple; // LPS
  thickness: number; // 0 if unknown
  rescale: [slope: number, intercept: number];
  padding: [number, number] | null;
  lossy: boolean;
  times: Triple | null; // echo, repetition and inversion in ms
}

/** A file that is no slice, and is passed over. */
export class Stranger extends Refusal {
  constructor(
    what: string,
    readonly kind: string,
  ) {
    super(what, "Remove it from the series");
  }
}

/** Parse and check one file. */
export function readHeader(name: string, bytes: Uint8Array): SliceHeader {
  const { dataset, syntax } = parse(bytes);
  checkKind(dataset);
  const form = readForm(dataset);
  const series = text(dataset, "0020000E");
  if (!series) throw new Refusal("does not say which series it belongs to", EXPORT);
  return {
    name, dataset, syntax, series, ...form, ...readPlace(dataset),
    thickness: Math.max(0, numbers(dataset, "00180050", 1)?.[0] ?? 0),
    rescale: readRescale(dataset), padding: readPadding(dataset, form), times: readTimes(dataset),
    lossy: text(dataset, "00282110") === "01" || /^1\.2\.840\.10008\.1\.2\.4\.5[01]$/.test(syntax),
  }; // prettier-ignore
}

export function isDicom(bytes: Uint8Array): boolean {
  return String.fromCharCode(...bytes.subarray(PREAMBLE, PREAMBLE + 4)) === "DICM" || looksLikeDataset(bytes);
}

export function isCompressed(syntax: string): boolean {
  return !PLAIN.includes(syntax);
}

/** So many numbers of an element, null where it has others. */
export function numbers(dataset: Dataset, tag: string, count: number): number[] | null {
  const found = (dataset[tag]?.Value ?? []).map(Number);
  return found.length === count && found.every((value) => Math.abs(value) < LARGEST) ? found : null;
}

export function text(dataset: Dataset, tag: string): string {
  return String(dataset[tag]?.Value?.[0] ?? "").trim();
}

function parse(bytes: Uint8Array): { dataset: Dataset; syntax: string } {
  if (!isDicom(bytes)) throw new Stranger("is not DICOM", "not DICOM");
  try {
    const whole = withPreamble(bytes);
    const file = dcmjs.DicomMessage.readFile(whole.slice().buffer, { ignoreErrors: true });
    const syntax = text(file.meta as Dataset, "00020010");
    if (syntax === "1.2.840.10008.1.2.2") throw new Refusal("is stored in big endian", "Decompress each file: gdcmconv --raw IN OUT (GDCM)");
    return { dataset: file.dict as Dataset, syntax };
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal("cannot be read as DICOM", RESTORE);
  }
}

/** Old exports begin with their elements: group 8, ascending. */
function looksLikeDataset(bytes: Uint8Array): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return bytes.length > 16 && view.getUint16(0, true) === 8 && view.getUint16(2, true) < 0x20 && view.getUint32(4, true) !== 0;
}

/** What dcmjs expects before the data set, where a file lacks it. */
function withPreamble(bytes: Uint8Array): Uint8Array {
  if (String.fromCharCode(...bytes.subarray(PREAMBLE, PREAMBLE + 4)) === "DICM") return bytes;
  const explicit = /^[A-Z]{2}$/.test(String.fromCharCode(bytes[4]!, bytes[5]!));
  const uid = explicit ? `${EXPLICIT}\0` : `${IMPLICIT}\0`;
  const element = [2, 0, 0x10, 0, 0x55, 0x49, uid.length, 0, ...new TextEncoder().encode(uid)];
  const length = [2, 0, 0, 0, 0x55, 0x4c, 4, 0, element.length, 0, 0, 0];
  const result = new Uint8Array(PREAMBLE + 4 + length.length + element.length + bytes.length);
  result.set([..."DICM"].map((letter) => letter.charCodeAt(0)), PREAMBLE);
  result.set([...length, ...element], PREAMBLE + 4);
  result.set(bytes, PREAMBLE + 4 + length.length + element.length);
  return result;
}

function checkKind(dataset: Dataset): void {
  const kind = text(dataset, "00080016");
  if (!numbers(dataset, "00280010", 1)) {
    if (!kind || PLANAR.test(kind)) throw new Refusal("holds no image", RESTORE);
    throw new Stranger("holds no image", "DICOM without an image");
  }
  if (kind && !PLANAR.test(kind) && !numbers(dataset, "00200032", 3)) throw new Stranger("holds no slice with a place in the body", "of another kind");
  if ((numbers(dataset, "00280008", 1)?.[0] ?? 1) > 1) {
    throw new Refusal("holds several slices in one file", "Convert it to NIfTI with dcm2niix, or let the server outline it");
  }
  if (text(dataset, "00280301").toUpperCase() === "YES") {
    throw new Refusal("has text burned into its pixels, which may name the patient", "Remove the text, or leave the series out");
  }
  if (String(dataset["00080008"]?.Value ?? "").toUpperCase().includes("MOSAIC")) {
    throw new Refusal("is a Siemens mosaic: one picture of all slices side by side", "Convert it to NIfTI with dcm2niix");
  } // prettier-ignore
  if (numbers(dataset, "00280002", 1)?.[0] !== 1 || !["MONOCHROME1", "MONOCHROME2"].includes(text(dataset, "00280004"))) {
    throw new Refusal("is not grayscale (one sample, MONOCHROME1 or MONOCHROME2)", "Leave the series out");
  }
  if (dataset["00283000"]) throw new Refusal("maps its values by a table (Modality LUT)", "Export it with a rescale slope instead");
}

function readForm(dataset: Dataset): Pick<SliceHeader, "size" | "inverted" | "allocated" | "stored" | "signed"> {
  const one = (tag: string) => numbers(dataset, tag, 1)?.[0] ?? -1;
  const [rows, columns] = [one("00280010"), one("00280011")];
  if (Math.min(rows, columns) < 1) throw new Refusal("has an impossible number of rows or columns", EXPORT);
  const [allocated, stored, high, signed] = [one("00280100"), one("00280101"), one("00280102"), one("00280103")];
  if (![8, 16].includes(allocated) || stored < 1 || stored > allocated || high !== stored - 1 || ![0, 1].includes(signed)) {
    throw new Refusal("has pixels that are not 8 or 16 bits from the lowest bit up", "Save it with 16 bits");
  }
  return { size: [rows, columns], inverted: text(dataset, "00280004") === "MONOCHROME1", allocated, stored, signed: signed === 1 };
}

function readPlace(dataset: Dataset): Pick<SliceHeader, "axes" | "pixel" | "position"> {
  const axes = numbers(dataset, "00200037", 6);
  const pixel = numbers(dataset, "00280030", 2);
  const position = numbers(dataset, "00200032", 3);
  const unusable = (name: string) => new Refusal(`has no usable ${name}, so its place is unknown`, EXPORT);
  if (!axes) throw unusable("ImageOrientationPatient");
  if (!pixel || Math.min(...pixel) <= 0) throw unusable("PixelSpacing");
  if (!position) throw unusable("ImagePositionPatient");
  const dot = (a: number, b: number) => [0, 1, 2].reduce((sum, n) => sum + axes[a + n]! * axes[b + n]!, 0);
  if (Math.max(Math.abs(dot(0, 0) - 1), Math.abs(dot(3, 3) - 1), Math.abs(dot(0, 3))) > ROUNDING) {
    throw new Refusal("has an ImageOrientationPatient that is not two perpendicular directions", EXPORT);
  }
  return { axes, pixel: pixel as [number, number], position: position as Triple };
}

function readRescale(dataset: Dataset): [number, number] {
  const read = (tag: string, usual: number) => {
    const value = dataset[tag]?.Value?.[0];
    if (value === undefined || value === "" || value === null) return usual;
    const number = numbers(dataset, tag, 1)?.[0];
    if (number === undefined) throw new Refusal("has a rescaling that is not a number", EXPORT);
    return number;
  };
  const slope = read("00281053", 1);
  if (slope === 0) throw new Refusal("has a RescaleSlope of 0, which makes all pixels equal", EXPORT);
  return [slope, read("00281052", 0)];
}

/** The range of values that fill the place outside the image; inverted as the pixels are. */
function readPadding(dataset: Dataset, form: Pick<SliceHeader, "inverted" | "stored" | "signed">): [number, number] | null {
  const value = numbers(dataset, "00280120", 1)?.[0];
  if (value === undefined) return null;
  const limit = numbers(dataset, "00280121", 1)?.[0] ?? value;
  const ends = [value, limit].map((end) => (form.inverted ? mirrored(end, form) : end));
  return [Math.min(...ends), Math.max(...ends)];
}

/** The value that stands for this one where the smallest is the brightest. */
export function mirrored(value: number, { signed, stored }: Pick<SliceHeader, "stored" | "signed">): number {
  return (signed ? -1 : 2 ** stored - 1) - value;
}

function readTimes(dataset: Dataset): Triple | null {
  const [echo, repetition, inversion] = ["00180081", "00180080", "00180082"].map((tag) => numbers(dataset, tag, 1)?.[0] ?? 0) as Triple;
  const inverts = String(dataset["00180020"]?.Value ?? "").includes("IR") || text(dataset, "00180082") !== "";
  return Math.min(echo, repetition) > 0 && (inversion > 0 || !inverts) ? [echo, repetition, inversion] : null;
}

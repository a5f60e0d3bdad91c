// A mask as DICOM SEG on the series that was given: the elements of brainseg.io.dicom.seg_writer, in a file that dcmjs writes.
// What dcmjs would derive of a series has UIDs by chance, the clock's date, and frames that refer to no single file.

import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js";
import { data as dcmjs } from "dcmjs";

import { version } from "../../package.json";
import type { Dataset } from "./dicomHeader";

/** What a SEG refers to: of each file of a series, in the order of its slices, the elements that are repeated. */
export type Origin = Source[];

type Source = Record<string, unknown[]>; // by keyword

/** What is said of an outline. `parameters`: of what made it; `edited`: whether a person changed it. */
export interface Outline {
  parameters: Record<string, string>;
  edited: boolean;
}

/** A series of which no SEG can be made. */
export class NoSeg extends Error {}

const OF_SERIES = ["StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"]; // the same in all files
const NEEDED = [...OF_SERIES, "SOPClassUID", "SOPInstanceUID", "Rows", "Columns", "ImageOrientationPatient", "PixelSpacing", "ImagePositionPatient"];
const EMPTY = ["PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"]; // that the standard wants, at least without a value
const COPIED = ["PositionReferenceIndicator", "StudyDescription", "PatientAge", "PatientSize", "PatientWeight", "PatientIdentityRemoved", "DeidentificationMethod"];
const OTHER = ["SeriesNumber", "SliceThickness", "SpacingBetweenSlices"];
const PICKED = [...NEEDED, ...EMPTY, ...COPIED, ...OTHER];

const NOTE = "Research use only, not for clinical use";
const [NO_DATE, NO_TIME] = ["19000101", "000000"]; // the standard wants some, and the study may have none
const SERIES = 1000; // added to the number of the source's series
const UNEVEN = 0.01; // of the distance: how far slices of a volume may be from even steps, as for highdicom
const ASLANT = 1e-3; // and their direction from the normal
const STORAGE = "1.2.840.10008.5.1.4.1.1.66.4";

/** What values of a kind must be, as the standard has it; the letters at most. */
const FORMS: Record<string, [form: RegExp, most: number]> = {
  UI: [/^(0|[1-9]\d*)(\.(0|[1-9]\d*))*$/, 64],
  DA: [/^\d{4}(0[1-9]|1[0-2])([0-2]\d|3[01])$/, 8],
  TM: [/^([01]\d|2[0-3])([0-5]\d((60|[0-5]\d)(\.\d{1,6} ?)?)?)?$/, 16],
  DS: [/^ *[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)? *$/i, 16],
  IS: [/^ *[+-]?\d+ *$/, 12],
  CS: [/^[A-Z0-9 _]*$/, 16],
  AS: [/^\d{3}[DWMY]$/, 4],
  SH: [/^/, 16],
  LO: [/^/, 64],
};

/** Take from the headers what a SEG repeats, and check that it is complete. */
export function pickOrigin(datasets: Dataset[]): Origin {
  const sources = datasets.map(pick);
  const missing = NEEDED.filter((keyword) => sources.some((source) => !source[keyword]));
  if (missing.length) throw new NoSeg(`its headers lack a valid ${missing.join(", ")}`);
  const differ = OF_SERIES.filter((keyword) => new Set(sources.map((source) => source[keyword]![0])).size > 1);
  if (differ.length) throw new NoSeg(`its files differ in ${differ.join(", ")}`);
  if (new Set(sources.map(({ SOPInstanceUID }) => SOPInstanceUID![0])).size < sources.length) throw new NoSeg("several of its files have one SOPInstanceUID");
  return sources;
}

function pick(dataset: Dataset): Source {
  const found: Source = {};
  for (const keyword of PICKED) {
    const { tag, vr } = dcmjs.DicomMetaDictionary.nameMap[keyword]!;
    const element = dataset[dcmjs.DicomMetaDictionary.unpunctuateTag(tag)];
    const values = (vr === "PN" ? element?.Value : (element?._rawValue ?? element?.Value)) ?? [];
    const all = Array.isArray(values) ? values : [values];
    if (all.length && all.every((value) => isValid(value, vr)) && (keyword !== "PatientSex" || ["M", "F", "O"].includes(String(all[0]).trim()))) {
      found[keyword] = vr === "PN" || vr === "US" ? all : all.map((value) => String(value).trim());
    }
  }
  return found;
}

function isValid(value: unknown, vr: string): boolean {
  if (vr === "US") return Number.isInteger(value);
  if (vr === "PN") return String(value) !== "" && String(value).split("=").every((part) => part.length <= 64); // prettier-ignore
  const [form, most] = FORMS[vr]!;
  const text = String(value ?? "");
  return text.trim() !== "" && form.test(text) && text.length <= most;
}

/** The bytes of a file. `mask`: 0 and 1 in the series' own order, slice by slice. Frames without tumour are left out unless all are. */
export function writeSeg(mask: Uint8Array, origin: Origin, outline: Outline): Uint8Array {
  const first = origin[0]!;
  const [rows, columns] = [Number(first.Rows![0]), Number(first.Columns![0])];
  const frame = (n: number) => mask.subarray(n * rows * columns, (n + 1) * rows * columns);
  const filled = origin.map((_, n) => n).filter((n) => frame(n).includes(1));
  const kept = (filled.length ? filled : origin.map((_, n) => n)).reverse(); // against the normal, as highdicom has them
  const pixels = new Uint8Array(kept.length * rows * columns);
  kept.forEach((n, at) => pixels.set(frame(n), at * rows * columns));
  const made = [first.SeriesInstanceUID![0], outline, version, bytesToHex(sha256(mask))];
  const dataset = {
    ...describeSource(origin),
    ...describeFile(first, outline, (what) => makeUid(what, ...made)),
    ...describePixels(rows, columns, pixels, kept.length),
    ...describeFrames(origin, kept),
    SegmentSequence: [describeSegment(outline)],
  };
  return new Uint8Array(dcmjs.datasetToDict({ ...dataset, _meta: {}, _vrMap: { PixelData: "OB" } }).write());
}

/** Patient, study and what is referred to. */
function describeSource(origin: Origin): object {
  const first = origin[0]!;
  const same = Object.fromEntries([...EMPTY.map((keyword) => [keyword, first[keyword] ?? []]), ...COPIED.filter((keyword) => first[keyword]).map((keyword) => [keyword, first[keyword]])]);
  return {
    ...same,
    PositionReferenceIndicator: first.PositionReferenceIndicator ?? [],
    StudyInstanceUID: first.StudyInstanceUID,
    FrameOfReferenceUID: first.FrameOfReferenceUID,
    ReferencedSeriesSequence: [{ SeriesInstanceUID: first.SeriesInstanceUID, ReferencedInstanceSequence: origin.map(referTo) }],
    SourceImageSequence: origin.map(referTo),
  };
}

function referTo({ SOPClassUID, SOPInstanceUID }: Source): object {
  return { ReferencedSOPClassUID: SOPClassUID, ReferencedSOPInstanceUID: SOPInstanceUID };
}

function describeFile(first: Source, { parameters, edited }: Outline, uid: (what: string) => string): object {
  const number = Math.min(Math.max(Number(first.SeriesNumber?.[0] ?? 0), 0), 1e6);
  const dimensions = uid("dimensions");
  const index = (pointer: number, group: number, label: string) => ({
    DimensionOrganizationUID: dimensions, DimensionIndexPointer: pointer, FunctionalGroupPointer: group, DimensionDescriptionLabel: label,
  }); // prettier-ignore
  return {
    SpecificCharacterSet: "ISO_IR 192",
    SOPClassUID: STORAGE,
    SOPInstanceUID: uid("instance"),
    SeriesInstanceUID: uid("series"),
    SeriesNumber: String(SERIES + number),
    InstanceNumber: "1",
    Modality: "SEG",
    Manufacturer: "brainseg",
    ManufacturerModelName: "brainseg",
    SoftwareVersions: version,
    DeviceSerialNumber: bytesToHex(sha256(utf8ToBytes(JSON.stringify(parameters)))).slice(0, 16),
    ContentLabel: "GLIOMA",
    ContentDescription: edited ? `${NOTE}; edited by hand` : NOTE,
    SeriesDescription: "brainseg: tumour outline, research only",
    ContentDate: first.StudyDate ?? NO_DATE,
    ContentTime: first.StudyTime ?? NO_TIME,
    DimensionOrganizationSequence: [{ DimensionOrganizationUID: dimensions }],
    DimensionIndexSequence: [index(0x0062000b, 0x0062000a, "Referenced Segment Number"), index(0x00200032, 0x00209113, "Image Position Patient")],
  };
}

function describePixels(rows: number, columns: number, pixels: Uint8Array, frames: number): object {
  const packed = dcmjs.BitArray.pack(pixels);
  const even = new Uint8Array(packed.length + (packed.length % 2));
  even.set(packed);
  return {
    ImageType: ["DERIVED", "PRIMARY"],
    SamplesPerPixel: 1,
    PhotometricInterpretation: "MONOCHROME2",
    PresentationLUTShape: "IDENTITY",
    NumberOfFrames: String(frames),
    Rows: rows,
    Columns: columns,
    BitsAllocated: 1,
    BitsStored: 1,
    HighBit: 0,
    PixelRepresentation: 0,
    LossyImageCompression: "00",
    SegmentationType: "BINARY",
    SegmentsOverlap: "NO",
    PixelData: even.buffer,
  };
}

/** Where each frame lies, and the file that it was made from. */
function describeFrames(origin: Origin, kept: number[]): object {
  const [first] = origin as [Source];
  const spacing = first.SpacingBetweenSlices ?? evenStep(origin);
  return {
    ...(kept.length > 1 && evenStep(kept.map((n) => origin[n]!)) ? { DimensionOrganizationType: "3D" } : {}),
    SharedFunctionalGroupsSequence: [{
      PlaneOrientationSequence: [{ ImageOrientationPatient: first.ImageOrientationPatient }],
      PixelMeasuresSequence: [{ PixelSpacing: first.PixelSpacing, SliceThickness: thickness(origin), ...(spacing ? { SpacingBetweenSlices: spacing } : {}) }],
      SegmentIdentificationSequence: [{ ReferencedSegmentNumber: 1 }],
    }],
    PerFrameFunctionalGroupsSequence: kept.map((n, at) => ({
      DerivationImageSequence: [{
        SourceImageSequence: [{
          ...referTo(origin[n]!),
          SpatialLocationsPreserved: "YES",
          PurposeOfReferenceCodeSequence: [code("121322", "DCM", "Source image for image processing operation")],
        }],
        DerivationCodeSequence: [code("113076", "DCM", "Segmentation")],
      }],
      FrameContentSequence: [{ DimensionIndexValues: [1, at + 1] }],
      PlanePositionSequence: [{ ImagePositionPatient: origin[n]!.ImagePositionPatient }],
    })),
  }; // prettier-ignore
}

/** The distance of slices, where they are evenly apart along their normal; a slice alone is taken for 1 mm, as by highdicom. */
function evenStep(sources: Source[]): string[] | null {
  const places = sources.map(({ ImagePositionPatient }) => ImagePositionPatient!.map(Number));
  const [a, b, c, d, e, f] = sources[0]!.ImageOrientationPatient!.map(Number) as [number, number, number, number, number, number];
  const normal = [b * f - c * e, c * d - a * f, a * e - b * d];
  const along = (place: number[]) => place.reduce((sum, value, n) => sum + value * normal[n]!, 0);
  if (places.length === 1) return ["1.0"];
  const steps = places.slice(1).map((place, n) => along(place) - along(places[n]!));
  const mean = steps.reduce((sum, step) => sum + step, 0) / steps.length;
  const spans = places.slice(1).map((place) => place.map((value, n) => value - places[0]![n]!));
  const aslant = spans.some((span) => 1 - Math.abs(along(span)) / Math.hypot(...span) >= ASLANT);
  return aslant || steps.some((step) => Math.abs(step - mean) > UNEVEN * Math.abs(mean)) ? null : [decimal(Math.abs(mean))];
}

/** Where a slice does not say how thick it is: as thick as they are apart, which the standard wants to know. */
function thickness(origin: Origin): unknown[] {
  if (origin.length === 1 || origin.every(({ SliceThickness }) => Number(SliceThickness?.[0]) > 0)) return origin[0]!.SliceThickness!;
  const [a, b] = origin.map(({ ImagePositionPatient }) => ImagePositionPatient!.map(Number)) as [number[], number[]];
  return [decimal(Math.round(Math.hypot(...b.map((value, n) => value - a[n]!)) * 1e6) / 1e6)];
}

/** A number in the 16 letters that there are. */
function decimal(value: number): string {
  return String(Number(value.toPrecision(12))).slice(0, 16);
}

function describeSegment({ parameters, edited }: Outline): object {
  const told = Object.entries(parameters).map(([name, value]) => `${name}=${value}`); // prettier-ignore
  return {
    SegmentNumber: 1,
    SegmentLabel: "Glioma",
    SegmentedPropertyCategoryCodeSequence: [code("49755003", "SCT", "Morphologically Abnormal Structure")],
    SegmentedPropertyTypeCodeSequence: [code("108369006", "SCT", "Neoplasm")],
    AnatomicRegionSequence: [code("12738006", "SCT", "Brain")],
    SegmentAlgorithmType: edited ? "SEMIAUTOMATIC" : "AUTOMATIC",
    SegmentAlgorithmName: "brainseg",
    SegmentationAlgorithmIdentificationSequence: [{
      AlgorithmFamilyCodeSequence: [code("123110", "DCM", "Artificial Intelligence")],
      AlgorithmName: "brainseg",
      AlgorithmVersion: version,
      AlgorithmParameters: told.join(","),
    }],
  }; // prettier-ignore
}

function code(value: string, scheme: string, meaning: string): object {
  return { CodeValue: value, CodingSchemeDesignator: scheme, CodeMeaning: meaning };
}

/** A UID of the form that the standard derives from UUIDs (here of version 8, a digest), the same for the same parts. */
function makeUid(...parts: unknown[]): string {
  const bytes = sha256(utf8ToBytes(JSON.stringify(["page", ...parts]))).slice(0, 16);
  bytes[6] = (bytes[6]! & 0x0f) | 0x80;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return `2.25.${BigInt(`0x${bytesToHex(bytes)}`)}`;
}

// A DICOM series of slices in a file each, to an axial volume. The Python side: brainseg.io.dicom.series_reader.

import { isCompressed, EXPORT, mirrored, readHeader, Stranger, type SliceHeader } from "./dicomHeader";
import { decodeFrame } from "./dicomCodecs";
import { NoSeg, pickOrigin, type Origin } from "./dicomSeg";
import { checkAffine, checkSize, MIN_SIDE, norm, toAxial } from "./orientation";
import { Refusal } from "./refusal";
import type { Geometry, Matrix, Place, Stack, Triple, Values } from "./voxels";

const SEPARATE = "Keep one series of one volume per folder";
const MAX_FILES = 4096;
const MAX_TILT = 0.02; // sideways shift of slices over their distance along the normal
const SLACK = 0.1; // of the slice distance, or of a pixel: how far a slice may lie from its place in an even stack
const MAX_MOVE = 0.2; // of a pixel: how far another orientation or spacing may move the corner of a slice
const CROSSING = 0.7; // cosine: normals that are further apart are of other planes
const THICK = 2; // times a pixel's side: slices that are not axial and this far apart give poor axial ones
const MIN_SPACING = 0.01; // mm
const PLANES = ["sagittal", "coronal", "axial"];
const [SHORTEST_ECHO, SHORTEST_INVERSION] = [50, 1400]; // ms, of FLAIR

interface File {
  name: string;
  bytes: Uint8Array;
}

export interface Series {
  stack: Stack;
  place: Place;
  remarks: string[];
  origin: Origin | null;
  noSeg: string;
}

export async function readSeries(files: File[]): Promise<Series> {
  if (files.length > MAX_FILES) throw new Refusal(`holds ${files.length} files, at most ${MAX_FILES} are accepted`, SEPARATE);
  const { slices, remarks } = readHeaders(files);
  checkAlike(slices);
  const { kept, copies } = await dropCopies(slices);
  const { ordered, affine } = stack(kept);
  const geometry: Geometry = { affine, shape: [ordered[0]!.size[1], ordered[0]!.size[0], ordered.length] };
  checkAffine(affine);
  const plane = describePlane(geometry);
  checkSize(geometry, 1);
  const { values, padded } = await readValues(ordered);
  const lossy = ordered.filter((slice) => slice.lossy).length;
  const told = lossy ? [`lossy compressed: ${lossy} of ${ordered.length} slices`] : [];
  const all = [...remarks, ...copies, ...told, ...padded, ...plane, ...doubtFlair(ordered[0]!)];
  return { ...toAxial(values, geometry, 1), remarks: all, ...findOrigin(ordered) };
}

function findOrigin(ordered: SliceHeader[]): Pick<Series, "origin" | "noSeg"> {
  try {
    return { origin: pickOrigin(ordered.map(({ dataset }) => dataset)), noSeg: "" };
  } catch (error) {
    if (error instanceof NoSeg) return { origin: null, noSeg: error.message };
    throw error;
  }
}

function readHeaders(files: File[]): { slices: SliceHeader[]; remarks: string[] } {
  const slices: SliceHeader[] = [];
  const passed = new Map<string, string[]>();
  let stranger: Refusal | null = null;
  for (const { name, bytes } of files) {
    try {
      slices.push(readHeader(name, bytes));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      const named = new Refusal(`${name}: ${error.what}`, error.fix);
      if (!(error instanceof Stranger) || /\.(dcm|dicom|ima)$/i.test(name)) throw named;
      stranger ??= named;
      passed.set(error.kind, [...(passed.get(error.kind) ?? []), name]);
    }
  }
  if (!slices.length) throw stranger ?? new Refusal("There are no DICOM files", "Drop the files of one series");
  return { slices, remarks: [...passed].map(([kind, names]) => `passed over ${count(names, kind)}`) };
}

function count(names: string[], kind: string): string {
  const shown = names.slice(0, 3).join(", ") + (names.length > 3 ? ", ..." : "");
  return `${names.length} ${names.length > 1 ? "files that are" : "file that is"} ${kind}: ${shown}`;
}

/** Refuse a mixture, by the first file that differs. */
function checkAlike(slices: SliceHeader[]): void {
  const [first] = slices as [SliceHeader];
  const normals = slices.map(normalOf);
  const planes = new Set(normals.map(planeOf));
  if (planes.size > 1 && Math.min(...normals.map((each) => Math.abs(dot(each, normals[0]!)))) < CROSSING) {
    throw new Refusal(`holds ${slices.length} slices in several directions (${[...planes].join(", ")}), as a localizer does`, "Leave it out, or keep one stack per folder");
  }
  const form = ({ inverted, signed, stored }: SliceHeader) => [inverted, signed, inverted ? stored : 0].join();
  const axes = Array.from({ length: 6 }, (_, n) => median(slices.map((slice) => slice.axes[n]!)));
  const pixel = [0, 1].map((n) => median(slices.map((slice) => slice.pixel[n]!)));
  const most = MAX_MOVE * Math.min(...pixel);
  const turned = (slice: SliceHeader) => move(slice.axes.map((value, n) => value - axes[n]!), pixel, first.size) > most;
  const scaled = (slice: SliceHeader) => move(axes, slice.pixel.map((value, n) => value - pixel[n]!), first.size) > most;
  refuseOthers("series", slices, (slice) => slice.series !== first.series);
  refuseOthers("size", slices, (slice) => slice.size.join() !== first.size.join());
  refuseOthers("kind of pixels", slices, (slice) => form(slice) !== form(first));
  refuseOthers("orientation", slices, turned);
  refuseOthers("pixel spacing", slices, scaled);
}

function refuseOthers(kind: string, slices: SliceHeader[], differs: (slice: SliceHeader) => boolean): void {
  const others = slices.filter(differs);
  if (!others.length) return;
  const usual = slices.find((slice) => !differs(slice)) ?? slices.at(-1)!;
  const more = others.length > 1 ? `, as are ${others.length - 1} more` : "";
  throw new Refusal(`${others[0]!.name} is of another ${kind} than ${usual.name}${more}`, SEPARATE);
}

/** How far, in mm, a difference in directions or spacing moves the corners of a slice at most. */
function move(axes: number[], pixel: number[], [rows, columns]: [number, number]): number {
  const across = axes.slice(0, 3).map((value) => value * (columns - 1) * pixel[1]!);
  const down = axes.slice(3).map((value) => value * (rows - 1) * pixel[0]!);
  return Math.max(norm(across), norm(down), norm(across.map((value, n) => value + down[n]!)));
}

/** Without slices that lie in the place of another one and hold the same values. */
async function dropCopies(slices: SliceHeader[]): Promise<{ kept: SliceHeader[]; copies: string[] }> {
  const places = new Map<string, SliceHeader>();
  const copies: string[] = [];
  for (const slice of slices) {
    const key = slice.position.map((value) => value.toFixed(3)).join();
    const twin = places.get(key);
    if (!twin) places.set(key, slice);
    else if (twin.rescale.join() !== slice.rescale.join() || !(await same(twin, slice))) return { kept: slices, copies: [] };
    else copies.push(slice.name);
  }
  const told = copies.length ? [`passed over ${copies.length} ${copies.length > 1 ? "files that are copies of others" : "file that is a copy of another one"}`] : [];
  return { kept: [...places.values()], copies: told };
}

async function same(a: SliceHeader, b: SliceHeader): Promise<boolean> {
  const [ours, theirs] = [await readPixels(a), await readPixels(b)];
  return ours.every((value, at) => value === theirs[at]);
}

/** Slices in order along their normal, and column, row, slice to millimetres, RAS+. */
function stack(slices: SliceHeader[]): { ordered: SliceHeader[]; affine: Matrix } {
  const axes = Array.from({ length: 6 }, (_, n) => median(slices.map((slice) => slice.axes[n]!)));
  const [betweenRows, betweenColumns] = [0, 1].map((n) => median(slices.map((slice) => slice.pixel[n]!))) as [number, number];
  const normal = cross(axes.slice(0, 3), axes.slice(3));
  const height = (slice: SliceHeader) => dot(slice.position, normal);
  const ordered = [...slices].sort((a, b) => height(a) - height(b) || (a.name < b.name ? -1 : 1));
  const step = ordered.length === 1 ? normal.map((value) => value * thickness(ordered[0]!)) : evenStep(ordered, normal);
  const columns = [axes.slice(0, 3).map((value) => value * betweenColumns), axes.slice(3).map((value) => value * betweenRows), step, ordered[0]!.position];
  const affine = [0, 1, 2].map((row) => columns.map((column) => (row < 2 ? -column[row]! : column[row]!))); // LPS to RAS
  return { ordered, affine: [...affine, [0, 0, 0, 1]] };
}

function thickness(slice: SliceHeader): number {
  if (!slice.thickness) throw new Refusal(`${slice.name} is alone and has no usable SliceThickness`, EXPORT);
  return slice.thickness;
}

/** From slice to slice. Refused are slices in one place, gaps, and slices that are shifted sideways. */
function evenStep(ordered: SliceHeader[], normal: number[]): number[] {
  const heights = ordered.map((slice) => dot(slice.position, normal));
  const steps = heights.slice(1).map((value, n) => value - heights[n]!);
  const close = steps.findIndex((value) => value < MIN_SPACING);
  if (close >= 0) throw new Refusal(`${ordered[close + 1]!.name} lies in the same place as ${ordered[close]!.name}`, "Keep one echo, time point and weighting per folder");
  const whole = heights.at(-1)! - heights[0]!;
  const mean = whole / steps.length;
  const uneven = heights.some((value, n) => Math.abs(value - heights[0]! - n * mean) > SLACK * mean);
  if (uneven) {
    const usual = median(steps);
    const odd = steps.reduce((best, value, n) => (Math.abs(value - usual) > Math.abs(steps[best]! - usual) ? n : best), 0);
    const what = `${ordered[odd + 1]!.name} lies ${steps[odd]!.toPrecision(4)} mm from ${ordered[odd]!.name}, most neighbours ${usual.toPrecision(4)} mm`;
    throw new Refusal(what, "Add the missing slices, or resample it to equal distances");
  }
  const sideways = ordered.map(({ position }, n) => position.map((value, k) => value - ordered[0]!.position[k]! - (heights[n]! - heights[0]!) * normal[k]!));
  const last = sideways.at(-1)!;
  const shifted = sideways.some((own, n) => norm(own.map((value, k) => value - (n / steps.length) * last[k]!)) > SLACK * Math.min(...ordered[0]!.pixel));
  if (norm(last) > MAX_TILT * whole || shifted) {
    throw new Refusal("The slices are shifted against each other (a tilted gantry, or two stacks)", "Resample it onto an upright grid, or keep one stack");
  }
  return ordered.at(-1)!.position.map((value, n) => (value - ordered[0]!.position[n]!) / steps.length);
}

/** The values of all slices, rescaled where their headers say so; padding gets the least value of the image. */
async function readValues(ordered: SliceHeader[]): Promise<{ values: Values; padded: string[] }> {
  const read: Values[] = [];
  for (const slice of ordered) read.push(await readPixels(slice));
  const scaled = ordered.some(({ rescale }) => rescale[0] !== 1 || rescale[1] !== 0);
  const length = read[0]!.length;
  const kind = scaled ? Float32Array : (read[0]!.constructor as new (length: number) => Values);
  const values = new kind(length * read.length);
  const outside = new Uint8Array(values.length);
  read.forEach((pixels, n) => {
    const { rescale: [slope, intercept], padding } = ordered[n]!; // prettier-ignore
    for (let at = 0; at < length; at++) {
      const value = pixels[at]!;
      values[n * length + at] = scaled ? value * slope + intercept : value;
      if (padding && value >= padding[0] && value <= padding[1]) outside[n * length + at] = 1;
    }
  });
  return { values, padded: fill(values, outside) };
}

function fill(values: Values, outside: Uint8Array): string[] {
  let [least, lowest, highest, count] = [Infinity, Infinity, -Infinity, 0];
  values.forEach((value, at) => {
    if (!outside[at]) least = Math.min(least, value);
    else [lowest, highest, count] = [Math.min(lowest, value), Math.max(highest, value), count + 1];
  });
  if (!count || count === values.length || (lowest >= 0 && highest <= least)) return []; // a background of 0, as usual
  outside.forEach((is, at) => {
    if (is) values[at] = least;
  });
  return [`padding (${count} pixels) was given the least value of the image`];
}

/** The pixels of one slice, not rescaled; where the smallest value is the brightest, they are inverted. */
async function readPixels(slice: SliceHeader): Promise<Values> {
  const { size: [rows, columns], allocated, stored, signed } = slice; // prettier-ignore
  const kind = signed ? Int16Array : allocated === 8 ? Uint8Array : Uint16Array;
  const found = isCompressed(slice.syntax) ? await decodeFrame(slice) : plainPixels(slice);
  if (found.length !== rows * columns) throw new Refusal(`${slice.name}: holds ${found.length} of ${rows * columns} pixels`, EXPORT);
  const extended = signed ? Int16Array.from(found, (value) => signExtend(value, stored)) : found;
  const values = new kind(found.length);
  for (let at = 0; at < values.length; at++) values[at] = slice.inverted ? mirrored(extended[at]!, slice) : extended[at]!;
  return values;
}

function plainPixels({ dataset, allocated, name, size: [rows, columns] }: SliceHeader): Uint8Array | Uint16Array {
  const data = dataset["7FE00010"]?.Value?.[0];
  if (!(data instanceof ArrayBuffer)) throw new Refusal(`${name}: holds no pixels`, EXPORT);
  const wanted = (rows * columns * allocated) / 8;
  if (data.byteLength < wanted || data.byteLength > wanted + 1) throw new Refusal(`${name}: holds ${data.byteLength} of ${wanted} bytes of pixels`, EXPORT);
  return allocated === 8 ? new Uint8Array(data, 0, wanted) : new Uint16Array(data.slice(0, wanted));
}

function signExtend(value: number, bits: number): number {
  return (value << (32 - bits)) >> (32 - bits);
}

function describePlane({ affine, shape }: Geometry): string[] {
  const [across, down, step] = [0, 1, 2].map((axis) => [0, 1, 2].map((row) => affine[row]![axis]!)) as [number[], number[], number[]];
  const plane = planeOf(step);
  if (plane === "axial" || norm(step) < THICK * Math.max(norm(across), norm(down))) return [];
  const told = `slices are ${plane} and ${norm(step).toPrecision(3)} mm apart, with pixels of ${norm(down).toPrecision(3)} x ${norm(across).toPrecision(3)} mm`;
  if (shape[2] < MIN_SIDE) throw new Refusal(`is not axial: its ${told}`, "Give an axial series, or a 3D one with small voxels");
  return [`the ${told}: axial slices through them are coarse`];
}

/** FLAIR is taken long after an inversion, when fluid has no signal, at a late echo. */
function doubtFlair({ times }: SliceHeader): string[] {
  if (!times || (times[0] >= SHORTEST_ECHO && times[2] >= SHORTEST_INVERSION)) return [];
  const [echo, repetition, inversion] = times.map((time) => (time ? `${Number(time.toPrecision(6))} ms` : "none"));
  return [`its times are not those of FLAIR: echo ${echo}, repetition ${repetition}, inversion ${inversion}`];
}

function normalOf({ axes }: SliceHeader): number[] {
  return cross(axes.slice(0, 3), axes.slice(3));
}

function planeOf(direction: number[]): string {
  const sizes = direction.map(Math.abs);
  return PLANES[sizes.indexOf(Math.max(...sizes))]!;
}

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

function dot(a: number[] | Triple, b: number[]): number {
  return a[0]! * b[0]! + a[1]! * b[1]! + a[2]! * b[2]!;
}

function cross(a: number[], b: number[]): number[] {
  return [a[1]! * b[2]! - a[2]! * b[1]!, a[2]! * b[0]! - a[0]! * b[2]!, a[0]! * b[1]! - a[1]! * b[0]!];
}

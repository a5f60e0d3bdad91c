// NIfTI-1 and NIfTI-2, plain or gzipped, one file or a pair. nifti-reader-js reads the header; which volumes are accepted,
// and where they lie, is decided as in Python: brainseg.io.nifti.

import { NIFTI1, NIFTI2, readHeader } from "nifti-reader-js";

import { inflate, isGzip } from "./inflate";
import { checkAffine, checkSize, MAX_VOXELS, toAxial } from "./orientation";
import { Refusal } from "./refusal";
import { toIntensities, toLabels, type Scaling, type Stored } from "./values";
import type { Geometry, Matrix, Place, Stack, Triple } from "./voxels";

type Header = NIFTI1 | NIFTI2;

const RESTORE = "Restore it, or save it again as .nii or .nii.gz";
const RGB = 128;
const VECTORS = [1007, 2003]; // intents of a fifth axis: vector, RGB
const TIME_SERIES = 2001;
const IN_MILLIMETRES = [0, 2]; // codes of the unit: unknown, which is taken as millimetres, and millimetres
const MAX_OFFSET = 2 ** 24; // bytes of header and extensions before the voxels
const MAX_TRAILING = 2 ** 20; // bytes after the voxels that are ignored
const MARKS: Record<string, boolean> = { "n+1": false, "n+2": false, "ni1": true, "ni2": true }; // whether of a pair
const TYPES: Record<number, { new (buffer: ArrayBuffer): Stored; BYTES_PER_ELEMENT: number }> = {
  2: Uint8Array, 4: Int16Array, 8: Int32Array, 16: Float32Array, 64: Float64Array, [RGB]: Uint8Array, 256: Int8Array,
  512: Uint16Array, 768: Uint32Array, 1024: BigInt64Array, 1280: BigUint64Array,
}; // prettier-ignore

export interface Scan {
  stack: Stack;
  place: Place;
  remarks: string[];
}

export function isNifti(bytes: Uint8Array): boolean {
  return [bytes.subarray(344, 347), bytes.subarray(4, 7)].some((mark) => new TextDecoder().decode(mark) in MARKS);
}

/** The intensities of a scan. `voxels`: the other half, if it is a pair. `ours`: of any size, since our own server wrote it. */
export async function readImage(file: Uint8Array, voxels?: Uint8Array, ours = false): Promise<Scan> {
  const found = await read(file, voxels, ours);
  const values = toIntensities(found.stored, found.scaling);
  return { ...toAxial(values, found.geometry, found.channels, found.colours), remarks: found.remarks };
}

/** A mask: whole numbers. */
export async function readLabels(file: Uint8Array, voxels?: Uint8Array): Promise<Scan> {
  const found = await read(file, voxels);
  if (found.channels !== 1) throw new Refusal(`has ${found.channels} channels, a mask must have one`, "Save its labels alone");
  return { ...toAxial(toLabels(found.stored, found.scaling), found.geometry, 1), remarks: found.remarks };
}

interface Read {
  geometry: Geometry;
  channels: number;
  colours: boolean;
  stored: Stored;
  scaling: Scaling;
  remarks: string[];
}

async function read(packed: Uint8Array, packedVoxels?: Uint8Array, ours = false): Promise<Read> {
  const most = MAX_OFFSET + MAX_TRAILING + 8 * MAX_VOXELS;
  const unpack = (bytes: Uint8Array) => (isGzip(bytes) ? inflate(bytes, most) : Promise.resolve(bytes));
  const file = await unpack(packed);
  const header = parse(file);
  const shape = readShape(header);
  checkTime(header);
  const { affine, remarks } = readAffine(header, file);
  const geometry: Geometry = { affine, shape: shape.slice(0, 3) as Triple };
  const colours = header.datatypeCode === RGB;
  const channels = colours ? 3 : (shape[3] ?? 1);
  if (!ours) checkSize(geometry, channels);
  const offset = readOffset(header, Boolean(packedVoxels));
  const stored = readVoxels(packedVoxels ? await unpack(packedVoxels) : file, header, offset, shape.slice(0, 3).concat(channels));
  return { geometry, channels, colours, stored, scaling: colours ? null : readScaling(header), remarks };
}

function parse(file: Uint8Array): Header {
  if (!isNifti(file)) throw new Refusal("has no NIfTI mark in its header (Analyze, or damaged)", RESTORE);
  const view = new DataView(file.buffer, file.byteOffset);
  const sizes = [view.getInt32(0, true), view.getInt32(0)];
  if (!sizes.some((size) => size === 348 || size === 540)) throw new Refusal("is not NIfTI", RESTORE);
  if (file.length < (sizes.includes(540) ? 540 : 348)) throw new Refusal("is cut short within its header", RESTORE);
  const whole = file.slice(0, Math.max(544, Math.min(file.length, 544))); // the library reads past a short header
  return readHeader(whole.buffer, true) as Header;
}

/** [I, J, K] or [I, J, K, 3]. */
function readShape(header: Header): number[] {
  const count = header.dims[0]!;
  const shape = header.dims.slice(1, 1 + count);
  if (!(count >= 1 && count <= 7) || shape.some((side) => side < 1)) throw new Refusal("has impossible dimensions in its header", RESTORE);
  if (count === 2) shape.push(1); // one slice
  while (shape.length > 3 && shape.at(-1) === 1) shape.pop();
  if (shape.length === 5 && shape[3] === 1 && VECTORS.includes(header.intent_code)) shape.splice(3, 1);
  const coloured = header.datatypeCode === RGB;
  if (shape.length !== 3 && (shape.length !== 4 || shape[3] !== 3 || coloured)) {
    throw new Refusal(`is ${shape.join(" x ")}, one volume is accepted`, "Save each volume, or three channels, as a file of their own");
  }
  return shape;
}

/** Refuse volumes one after another in time: a unit of time and a step, or a step that is no default. */
function checkTime(header: Header): void {
  if (header.dims[0]! < 4 || header.dims[4]! < 2) return;
  const step = header.pixDims[4]!;
  const marked = header.xyzt_units & 0x38 ? step !== 0 : ![0, 1].includes(step);
  if (marked || header.intent_code === TIME_SERIES) {
    throw new Refusal(`is a series of ${header.dims[4]} volumes by its header, one volume is accepted`, "Save one time point as a file of its own");
  }
}

/** The sform if it is there and an upright grid, else the qform. */
function readAffine(header: Header, file: Uint8Array): { affine: Matrix; remarks: string[] } {
  if (!IN_MILLIMETRES.includes(header.xyzt_units & 7)) throw new Refusal("is not measured in millimetres", "Convert its header to millimetres");
  if (header.sform_code <= 0) {
    if (header.qform_code > 0) return { affine: readQform(header), remarks: [] };
    const fix = "Set it with fslorient or nibabel, or convert it again from DICOM";
    throw new Refusal("has no orientation (neither sform nor qform), so left and right are unknown", fix);
  }
  const affine = readSform(header, file);
  try {
    checkAffine(affine);
    return { affine, remarks: [] };
  } catch (unusable) {
    if (header.qform_code <= 0 || !(unusable instanceof Refusal)) throw unusable;
    try {
      return { affine: readQform(header), remarks: [`its sform ${unusable.what}, so its qform was used`] };
    } catch {
      throw unusable;
    }
  }
}

/** The library keeps one matrix, by its own choice of sform and qform. */
function readSform(header: Header, file: Uint8Array): Matrix {
  const view = new DataView(file.buffer, file.byteOffset);
  const second = header instanceof NIFTI2;
  const at = (n: number) => (second ? view.getFloat64(400 + 8 * n, header.littleEndian) : view.getFloat32(280 + 4 * n, header.littleEndian));
  return [...[0, 1, 2].map((row) => [0, 1, 2, 3].map((column) => at(4 * row + column))), [0, 0, 0, 1]];
}

/** From a quaternion whose first part is left out (NIfTI-1, "method 2"). */
function readQform(header: Header): Matrix {
  const broken = new Refusal("has an orientation (qform) that is no rotation", RESTORE);
  const [b, c, d] = [header.quatern_b, header.quatern_c, header.quatern_d];
  const rest = 1 - (b * b + c * c + d * d);
  const [first, ...sides] = header.pixDims.slice(0, 4) as [number, number, number, number];
  if (rest < -3.6e-7 || ![0, 1, -1].includes(first) || sides.some((side) => side <= 0)) throw broken;
  const a = Math.sqrt(Math.max(rest, 0));
  const scale = 2 / (a * a + b * b + c * c + d * d);
  const rotation = [
    [1 - scale * (c * c + d * d), scale * (b * c - d * a), scale * (b * d + c * a)],
    [scale * (b * c + d * a), 1 - scale * (b * b + d * d), scale * (c * d - b * a)],
    [scale * (b * d - c * a), scale * (c * d + b * a), 1 - scale * (b * b + c * c)],
  ];
  if (first === -1) sides[2] = -sides[2]!;
  const offset = [header.qoffset_x, header.qoffset_y, header.qoffset_z];
  const affine = [...rotation.map((row, n) => [...row.map((value, axis) => value * sides[axis]!), offset[n]!]), [0, 0, 0, 1]];
  checkAffine(affine);
  return affine;
}

function readScaling(header: Header): Scaling {
  const [slope, intercept] = [header.scl_slope, header.scl_inter];
  if (slope === 0 || Number.isNaN(slope) || (slope === 1 && intercept === 0)) return null;
  if (!Number.isFinite(slope) || !Number.isFinite(intercept)) throw new Refusal("has a scaling that is not a number", RESTORE);
  return { slope, intercept };
}

/** Bytes before the voxels in the file that has them. */
function readOffset(header: Header, isPair: boolean): number {
  const offset = header.vox_offset;
  const least = isPair ? 0 : (header instanceof NIFTI2 ? 540 : 348) + 4;
  if (!(offset >= least && offset <= MAX_OFFSET) || offset % 1) throw new Refusal("says that its voxels begin at an impossible place", RESTORE);
  return offset;
}

function readVoxels(file: Uint8Array, header: Header, offset: number, shape: number[]): Stored {
  const type = TYPES[header.datatypeCode];
  if (!type) throw new Refusal("has voxels of a type that is not read", "Save it as integers, float32 or float64");
  const width = type.BYTES_PER_ELEMENT;
  if (header.numBitsPerVoxel !== 8 * width * (header.datatypeCode === RGB ? 3 : 1)) {
    throw new Refusal("declares a type and a size of its voxels that disagree", RESTORE);
  }
  const size = width * shape.reduce((product, side) => product * side, 1);
  const there = file.length - offset;
  if (there < size) throw new Refusal(`is cut short: ${Math.max(there, 0)} of ${size} bytes of voxels`, RESTORE);
  if (there > size + MAX_TRAILING) throw new Refusal("holds more than its header declares", RESTORE);
  const bytes = file.slice(offset, offset + size);
  if (!header.littleEndian && width > 1) swap(bytes, width);
  return new type(bytes.buffer);
}

/** The bytes of each value the other way round, in place. */
function swap(bytes: Uint8Array, width: number): void {
  for (let at = 0; at < bytes.length; at += width) bytes.subarray(at, at + width).reverse();
}

// From a file's order of voxels to axial slices, and back. Axes are permuted and flipped, nothing is resampled.
// The Python side of it: brainseg.io.volumes.

import { Refusal } from "./refusal";
import type { Geometry, Matrix, Place, Stack, Triple, Values } from "./voxels";

export const MIN_SIDE = 8;
export const MAX_SIDE = 1024;
export const MAX_VOXELS = 2 ** 27; // of all channels together
const MIN_SPACING = 0.01; // mm; outside, the unit is another one or the header is damaged
const MAX_SPACING = 100;
const MIN_UPRIGHT = 0.99; // volume of a voxel divided by the product of its sides
const TOLERANCE = 0.1; // of the smallest spacing: two grids that are closer than this hold the same voxels
const FAR = 1e6; // mm; no scanner is as large

/** Radiological display, 1 mm: for files that hold neither place nor size. */
export const UPRIGHT: Matrix = [[-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]; // prettier-ignore

/** For slices, rows and columns in turn: the axis of the file, and whether it runs the other way there. */
type Axes = { axis: number; flipped: boolean }[];

/** The way from voxels in a file's order to axial order. `colours`: the channels of a voxel lie side by side. */
export function toAxial(stored: Values, geometry: Geometry, channels: number, colours = false): { stack: Stack; place: Place } {
  const axes = findAxes(geometry.affine);
  const [slices, height, width] = axes.map(({ axis }) => geometry.shape[axis]!) as Triple;
  const voxels = slices * height * width;
  const values = new (stored.constructor as new (length: number) => Values)(stored.length);
  const { start, steps } = walk(axes, geometry.shape);
  const [between, within] = colours ? [channels, 1] : [1, voxels];
  let at = 0;
  for (let s = 0; s < slices; s++) {
    for (let r = 0; r < height; r++) {
      let from = (start + s * steps[0] + r * steps[1]) * between;
      for (let c = 0; c < width; c++, from += steps[2] * between) {
        for (let k = 0; k < channels; k++) values[at++] = stored[from + k * within]!;
      }
    }
  }
  const sides = columns(geometry.affine).map(norm);
  const spacing = [1, 2, 0].map((n) => sides[axes[n]!.axis]!) as Triple;
  return { stack: { values, slices, height, width, channels }, place: { spacing, geometry } };
}

/** The inverse for one value a voxel: axial slices to the order of the file. */
export function toFileOrder<T extends Uint8Array | Float32Array>(axial: T, geometry: Geometry): T {
  const axes = findAxes(geometry.affine);
  const [slices, height, width] = axes.map(({ axis }) => geometry.shape[axis]!) as Triple;
  const stored = new (axial.constructor as new (length: number) => T)(axial.length);
  const { start, steps } = walk(axes, geometry.shape);
  let at = 0;
  for (let s = 0; s < slices; s++) {
    for (let r = 0; r < height; r++) {
      let to = start + s * steps[0] + r * steps[1];
      for (let c = 0; c < width; c++, to += steps[2]) stored[to] = axial[at++]!;
    }
  }
  return stored;
}

/** Slice, row and column of the axial stack to millimetres, RAS+. */
export function axialAffine({ affine, shape }: Geometry): Matrix {
  const result: Matrix = [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]; // prettier-ignore
  for (let row = 0; row < 3; row++) {
    result[row]![3] = affine[row]![3]!;
    findAxes(affine).forEach(({ axis, flipped }, n) => {
      const step = affine[row]![axis]!;
      result[row]![n] = flipped ? -step : step;
      if (flipped) result[row]![3]! += step * (shape[axis]! - 1);
    });
  }
  return result;
}

export function axialShape(geometry: Geometry): Triple {
  return findAxes(geometry.affine).map(({ axis }) => geometry.shape[axis]!) as Triple;
}

/** Refuse an affine that gives voxels no position, no size, or sheared sides. */
export function checkAffine(affine: Matrix): void {
  const fix = "Repair the orientation in its header, or export it again";
  if (!affine.flat().every((value) => Math.abs(value) < FAR)) {
    throw new Refusal("has an orientation matrix with values that are not numbers, or far too large", fix);
  }
  const found = columns(affine);
  const sides = found.map(norm);
  if (Math.min(...sides) < MIN_SPACING || Math.max(...sides) > MAX_SPACING) {
    const what = `has voxels of ${sides.map((side) => Number(side.toPrecision(6))).join(" x ")} mm`;
    throw new Refusal(`${what}, sides must be ${MIN_SPACING} to ${MAX_SPACING} mm`, "Correct the voxel size in its header, in millimetres");
  }
  const upright = Math.abs(determinant(found.map((column, n) => column.map((value) => value / sides[n]!))));
  if (!(upright >= MIN_UPRIGHT)) {
    throw new Refusal(`has axes that ${upright < 1e-3 ? "lie in one plane" : "are not perpendicular"}`, "Resample it onto an upright grid");
  }
}

/** Refuse what is too small or too large, by the header alone. */
export function checkSize(geometry: Geometry, channels: number): void {
  const [slices, height, width] = axialShape(geometry);
  if (Math.min(height, width) < MIN_SIDE || Math.max(height, width, slices) > MAX_SIDE) {
    const limits = `at most ${MAX_SIDE} slices with sides of ${MIN_SIDE} to ${MAX_SIDE} are accepted`;
    throw new Refusal(`is ${slices} axial slices of ${width} x ${height} voxels, ${limits}`, "Crop, resample or remove it");
  }
  if (slices * height * width * channels > MAX_VOXELS) throw new Refusal("has more voxels than are accepted", "Crop or resample it");
}

/** Whether two volumes have the same voxel positions, whatever the order in their files. */
export function samePlace(a: Place, b: Place): boolean {
  const shape = axialShape(a.geometry);
  if (axialShape(b.geometry).join() !== shape.join()) return false;
  const [first, second] = [axialAffine(a.geometry), axialAffine(b.geometry)];
  const most = TOLERANCE * Math.min(...a.spacing);
  for (let corner = 0; corner < 8; corner++) {
    const at = [0, 1, 2].map((n) => (corner >> n & 1 ? shape[n]! - 1 : 0)) as Triple;
    const [p, q] = [transform(first, at), transform(second, at)];
    if (norm(p.map((value, n) => value - q[n]!)) > most) return false;
  }
  return true;
}

export function transform(affine: Matrix, [x, y, z]: Triple): Triple {
  return [0, 1, 2].map((n) => affine[n]![0]! * x + affine[n]![1]! * y + affine[n]![2]! * z + affine[n]![3]!) as Triple;
}

/** The voxel of the file that lies at a point in millimetres. */
export function voxelAt(affine: Matrix, point: Triple): Triple {
  const turned = inverse(affine.slice(0, 3).map((row) => row.slice(0, 3)));
  const shifted = point.map((value, n) => value - affine[n]![3]!);
  return turned.map((row) => row.reduce((sum, value, n) => sum + value * shifted[n]!, 0)) as Triple;
}

/** The nearest rotation of the three columns of an affine, mirrored or not: the polar factor, by Newton's iteration (Higham 1986). */
export function nearestRotation(affine: Matrix): Matrix {
  const found = columns(affine);
  let current = [0, 1, 2].map((row) => found.map((column) => column[row]! / norm(column)));
  for (let n = 0; n < 20; n++) {
    const other = inverse(current);
    current = current.map((row, r) => row.map((value, c) => (value + other[c]![r]!) / 2));
  }
  return current;
}

export function determinant(m: Matrix): number {
  const [a, b, c] = m as [number[], number[], number[]];
  return (
    a[0]! * (b[1]! * c[2]! - b[2]! * c[1]!) - a[1]! * (b[0]! * c[2]! - b[2]! * c[0]!) + a[2]! * (b[0]! * c[1]! - b[1]! * c[0]!)
  );
}

export function norm(vector: number[]): number {
  return Math.hypot(...vector);
}

/** As nibabel's io_orientation: each axis of the file goes to the nearest axis of the patient that is still free. */
function findAxes(affine: Matrix): Axes {
  const rotation = nearestRotation(affine);
  const taken: number[] = [];
  const patient = [0, 1, 2].map((axis) => {
    const column = rotation.map((row, n) => (taken.includes(n) ? 0 : row[axis]!));
    const nearest = column.reduce((best, value, n) => (Math.abs(value) > Math.abs(column[best]!) ? n : best), 0);
    taken.push(nearest);
    return { nearest, grows: column[nearest]! > 0 };
  });
  return [[2, true], [1, false], [0, false]].map(([wanted, grows]) => {
    const axis = patient.findIndex(({ nearest }) => nearest === wanted);
    return { axis, flipped: patient[axis]!.grows !== grows };
  }); // prettier-ignore
}

/** Where the first axial voxel lies in the file, the first axis fastest, and the steps to the next slice, row and column. */
function walk(axes: Axes, shape: Triple): { start: number; steps: Triple } {
  const strides = [1, shape[0], shape[0] * shape[1]];
  let start = 0;
  const steps = axes.map(({ axis, flipped }) => {
    if (flipped) start += (shape[axis]! - 1) * strides[axis]!;
    return flipped ? -strides[axis]! : strides[axis]!;
  });
  return { start, steps: steps as Triple };
}

function columns(affine: Matrix): number[][] {
  return [0, 1, 2].map((column) => [0, 1, 2].map((row) => affine[row]![column]!));
}

function inverse(m: Matrix): Matrix {
  const whole = determinant(m);
  const minor = (r: number, c: number) => {
    const [rows, cols] = [[0, 1, 2].filter((n) => n !== r), [0, 1, 2].filter((n) => n !== c)];
    return m[rows[0]!]![cols[0]!]! * m[rows[1]!]![cols[1]!]! - m[rows[0]!]![cols[1]!]! * m[rows[1]!]![cols[0]!]!;
  };
  return [0, 1, 2].map((r) => [0, 1, 2].map((c) => ((r + c) % 2 ? -1 : 1) * minor(c, r) / whole)); // prettier-ignore
}

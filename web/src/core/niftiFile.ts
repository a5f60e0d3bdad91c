// Masks and maps as NIfTI-1, in the geometry of the file that they were made from.

import { deflate } from "./inflate";
import { determinant, nearestRotation, toFileOrder, UPRIGHT } from "./orientation";
import type { Geometry, Matrix, Stack } from "./voxels";

const HEADER = 352;
const SCANNER = 1; // code of an sform or qform in coordinates of the scanner
const MILLIMETRES = 2;
const DESCRIPTION = 79; // bytes

/** The bytes of a .nii.gz. `description`: what the header says of it, ASCII. */
export async function writeNifti(
  axial: Uint8Array | Float32Array, size: Pick<Stack, "slices" | "height" | "width">, geometry: Geometry | null, description: string,
): Promise<Uint8Array> {
  const grid = geometry ?? { affine: UPRIGHT, shape: [size.width, size.height, size.slices] };
  const voxels = toFileOrder(axial, grid);
  const file = new Uint8Array(HEADER + voxels.byteLength);
  writeHeader(new DataView(file.buffer), grid, axial instanceof Float32Array);
  const text = new TextEncoder().encode(description).subarray(0, DESCRIPTION);
  file.set(text, 148);
  file.set(new TextEncoder().encode("n+1"), 344);
  file.set(new Uint8Array(voxels.buffer, voxels.byteOffset, voxels.byteLength), HEADER);
  return deflate(file);
} // prettier-ignore

function writeHeader(view: DataView, { affine, shape }: Geometry, isFloat: boolean): void {
  const sides = [0, 1, 2].map((axis) => Math.hypot(...[0, 1, 2].map((row) => affine[row]![axis]!)));
  const mirrored = determinant(affine.slice(0, 3).map((row) => row.slice(0, 3))) < 0;
  view.setInt32(0, 348, true);
  [3, ...shape, 1, 1, 1, 1].forEach((side, n) => view.setInt16(40 + 2 * n, side, true));
  view.setInt16(70, isFloat ? 16 : 2, true);
  view.setInt16(72, isFloat ? 32 : 8, true);
  [mirrored ? -1 : 1, ...sides].forEach((side, n) => view.setFloat32(76 + 4 * n, side, true));
  view.setFloat32(108, HEADER, true);
  view.setFloat32(112, 1, true);
  view.setUint8(123, MILLIMETRES);
  view.setInt16(252, SCANNER, true);
  view.setInt16(254, SCANNER, true);
  quaternion(affine, mirrored).forEach((part, n) => view.setFloat32(256 + 4 * n, part, true));
  [0, 1, 2].forEach((row) => view.setFloat32(268 + 4 * row, affine[row]![3]!, true));
  affine.slice(0, 3).flat().forEach((value, n) => view.setFloat32(280 + 4 * n, value, true)); // prettier-ignore
}

/** The last three parts of the rotation's quaternion, whose first one is not negative. */
function quaternion(affine: Matrix, mirrored: boolean): number[] {
  const m = nearestRotation(affine).map((row) => [row[0]!, row[1]!, mirrored ? -row[2]! : row[2]!]);
  const diagonal = [0, 1, 2].map((n) => m[n]![n]!) as [number, number, number];
  const trace = diagonal[0] + diagonal[1] + diagonal[2];
  const [x, y, z] = diagonal;
  const sizes = [1 + trace, 1 + x - y - z, 1 - x + y - z, 1 - x - y + z].map((value) => Math.sqrt(Math.max(value, 0)) / 2);
  const largest = sizes.indexOf(Math.max(...sizes));
  const pair = (row: number, column: number, sign: number) => (m[row]![column]! + sign * m[column]![row]!) / (4 * sizes[largest]!);
  const parts = [
    [sizes[0]!, pair(2, 1, -1), pair(0, 2, -1), pair(1, 0, -1)],
    [pair(2, 1, -1), sizes[1]!, pair(1, 0, 1), pair(0, 2, 1)],
    [pair(0, 2, -1), pair(1, 0, 1), sizes[2]!, pair(2, 1, 1)],
    [pair(1, 0, -1), pair(0, 2, 1), pair(2, 1, 1), sizes[3]!],
  ][largest]!;
  return parts.slice(1).map((part) => (parts[0]! < 0 ? -part : part));
}

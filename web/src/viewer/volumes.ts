// Stacks as NiiVue takes them: NIfTI in memory, voxels in the order right, front, head.

import { NVImage } from "@niivue/niivue";

import { axialAffine } from "../core/orientation";
import type { Matrix, Place, Stack, Values } from "../core/voxels";

const HEADER = 352;
const CODES: Record<string, [code: number, bits: number]> = { Uint8Array: [2, 8], Int16Array: [4, 16], Float32Array: [16, 32], Uint16Array: [512, 16] };

export interface Look {
  name: string;
  colormap: string;
  opacity: number;
  low: number;
  high: number;
}

/** A stack of one channel for NiiVue. Slices go to the head, but rows to the back and columns to the left: each is turned round. */
export async function load(stack: Stack, place: Place | null, look: Look): Promise<NVImage> {
  const turned = reversed(stack.values, stack.height * stack.width);
  const [code, bits] = CODES[turned.constructor.name]!;
  const file = new Uint8Array(HEADER + turned.byteLength);
  const view = new DataView(file.buffer);
  const affine = affineOf(stack, place);
  const sides = [0, 1, 2].map((axis) => Math.hypot(...[0, 1, 2].map((row) => affine[row]![axis]!)));
  view.setInt32(0, 348, true);
  [3, stack.width, stack.height, stack.slices, 1, 1, 1, 1].forEach((side, n) => view.setInt16(40 + 2 * n, side, true));
  view.setInt16(70, code, true);
  view.setInt16(72, bits, true);
  [1, ...sides].forEach((side, n) => view.setFloat32(76 + 4 * n, side, true));
  view.setFloat32(108, HEADER, true);
  view.setFloat32(112, 1, true);
  view.setInt16(254, 1, true);
  affine.flat().forEach((value, n) => view.setFloat32(280 + 4 * n, value, true));
  file.set(new TextEncoder().encode("n+1"), 344);
  file.set(new Uint8Array(turned.buffer, turned.byteOffset, turned.byteLength), HEADER);
  const { name, colormap, opacity, low, high } = look;
  const image = await NVImage.loadFromUrl({ url: file.buffer, name: `${name}.nii`, colormap, opacity, cal_min: low, cal_max: high });
  image.colorbarVisible = false;
  return image;
}

/** Each slice of so many voxels the other way round. */
export function reversed<T extends Values>(values: T, length: number): T {
  const result = values.slice() as T;
  for (let at = 0; at < result.length; at += length) result.subarray(at, at + length).reverse();
  return result;
}

/** Voxel (x to the right, y to the front, z to the head) to millimetres; without a place, one millimetre a voxel. */
function affineOf({ width, height }: Stack, place: Place | null): Matrix {
  if (!place) return [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]; // prettier-ignore
  const axial = axialAffine(place.geometry);
  return axial.slice(0, 3).map(([slice, row, column, offset]) => [
    -column!, -row!, slice!, offset! + column! * (width - 1) + row! * (height - 1),
  ]); // prettier-ignore
}

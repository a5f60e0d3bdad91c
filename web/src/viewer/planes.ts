// One plane of a stack: which voxels lie in it.

import type { Axis } from "../core/editing";
import type { Triple } from "../core/voxels";

export interface Plane {
  axis: Axis; // that it lies across
  slice: number; // along it, from 0
}

/** The axes that run sideways and down in the plane across an axis. */
export const IN_PLANE: Record<Axis, [across: Axis, down: Axis]> = { 0: [2, 1], 1: [2, 0], 2: [1, 0] };

export function axesSize(axis: Axis, shape: Triple): [width: number, height: number] {
  const [across, down] = IN_PLANE[axis];
  return [shape[across], shape[down]];
}

/** The values of a plane, row by row. `shape`: slices, rows, columns. */
export function planeOf(values: Uint8Array, shape: Triple, { axis, slice }: Plane): Uint8Array {
  const strides = [shape[1] * shape[2], shape[2], 1];
  const [across, down] = IN_PLANE[axis];
  const [width, height] = axesSize(axis, shape);
  const result = new Uint8Array(width * height);
  for (let b = 0, at = 0; b < height; b++) {
    for (let a = 0; a < width; a++) result[at++] = values[slice * strides[axis]! + a * strides[across]! + b * strides[down]!]!;
  }
  return result;
}

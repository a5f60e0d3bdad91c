// Where the voxels of a plane lie on the canvas, for each picture that NiiVue drew on it.

import { SLICE_TYPE, type Niivue } from "@niivue/niivue";

import type { Axis } from "../core/editing";
import type { Triple } from "../core/voxels";

/** One picture: x = left + a * dx, y = top + b * dy for voxel edges a and b along its two axes, in pixels of the canvas. */
export interface Tile {
  axis: Axis; // that the plane lies across
  across: Axis; // that runs sideways
  down: Axis; // that runs up and down
  left: number;
  top: number;
  dx: number;
  dy: number;
  box: [left: number, top: number, width: number, height: number];
}

const AXES: Partial<Record<SLICE_TYPE, [Axis, Axis, Axis]>> = {
  [SLICE_TYPE.AXIAL]: [0, 2, 1],
  [SLICE_TYPE.CORONAL]: [1, 2, 0],
  [SLICE_TYPE.SAGITTAL]: [2, 1, 0],
};

/** `shape`: slices, rows, columns. NiiVue's own axes run to the right, front and head. */
export function findTiles(nv: Niivue, shape: Triple): Tile[] {
  return nv.screenSlices.flatMap((slice) => {
    const axes = AXES[slice.axCorSag];
    if (!axes || !slice.fovMM.length) return [];
    const [axis, across, down] = axes;
    const box = slice.leftTopWidthHeight as Tile["box"];
    const [x0, y0] = [0, 1].map((n) => slice.leftTopMM[n]!) as [number, number];
    const along = (edges: Triple) => {
      const mm = nv.frac2mm([1 - edges[2] / shape[2], 1 - edges[1] / shape[1], edges[0] / shape[0]] as unknown as Parameters<Niivue["frac2mm"]>[0]);
      const of = (n: Axis) => mm[2 - n]!;
      return [
        box[0] + ((of(across) - x0) / slice.fovMM[0]!) * box[2],
        box[1] + box[3] - ((of(down) - y0) / slice.fovMM[1]!) * box[3],
      ] as const;
    };
    const first = along([0, 0, 0]);
    const last = along([1, 1, 1]);
    return [{ axis, across, down, left: first[0], top: first[1], dx: last[0] - first[0], dy: last[1] - first[1], box }];
  });
}

/** The picture at a point of the canvas, and the voxel edges there along its two axes. */
export function locate(tiles: Tile[], x: number, y: number): { tile: Tile; a: number; b: number } | null {
  const tile = tiles.find(({ box: [left, top, width, height] }) => x >= left && y >= top && x < left + width && y < top + height);
  return tile ? { tile, a: (x - tile.left) / tile.dx, b: (y - tile.top) / tile.dy } : null;
}

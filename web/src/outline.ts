// The outline of a mask as line segments: marching squares between the centres of pixels, so it runs half a pixel outside.

/** Segments [x0, y0, x1, y1, ...] in pixels of the slice; the centre of pixel (0, 0) lies at 0.5, 0.5. */
export function outline(mask: Uint8Array, width: number, height: number): Float32Array {
  const lines: number[] = [];
  const at = (x: number, y: number) => (x >= 0 && y >= 0 && x < width && y < height && mask[y * width + x] ? 1 : 0);
  for (let y = -1; y < height; y++) {
    for (let x = -1; x < width; x++) {
      const cell = at(x, y) | (at(x + 1, y) << 1) | (at(x + 1, y + 1) << 2) | (at(x, y + 1) << 3);
      for (const [from, to] of CELLS[cell]!) {
        lines.push(x + 0.5 + SIDES[from]![0], y + 0.5 + SIDES[from]![1], x + 0.5 + SIDES[to]![0], y + 0.5 + SIDES[to]![1]);
      }
    }
  }
  return Float32Array.from(lines);
}

/** The middles of a cell's sides: top, right, bottom, left. */
const SIDES = [
  [0.5, 0],
  [1, 0.5],
  [0.5, 1],
  [0, 0.5],
] as const;
const [T, R, B, L] = [0, 1, 2, 3];

/** Which sides a line joins, by the corners inside: 1 top left, 2 top right, 4 bottom right, 8 bottom left. */
const CELLS: [number, number][][] = [
  [], [[L, T]], [[T, R]], [[L, R]], [[R, B]], [[L, T], [R, B]], [[T, B]], [[L, B]],
  [[B, L]], [[B, T]], [[T, R], [B, L]], [[B, R]], [[R, L]], [[R, T]], [[T, L]], [],
]; // prettier-ignore

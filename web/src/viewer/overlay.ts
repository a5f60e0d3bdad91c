// What is drawn above NiiVue's pictures: outlines, a scale, a measured line, the place of the brush.

import type { Triple } from "../core/voxels";
import { outline } from "../outline";
import type { Colour } from "./looks";
import { axesSize, planeOf, type Plane } from "./planes";
import type { Tile } from "./tiles";

export interface Line {
  tile: Pick<Tile, "axis">;
  slice: number;
  from: [a: number, b: number];
  to: [a: number, b: number];
}

/** Outlines of a mask in all planes, found when they are first looked at. */
export class Outlines {
  private known = new Map<string, Float32Array>();

  constructor(
    private mask: Uint8Array,
    private shape: Triple,
  ) {}

  forget(): void {
    this.known.clear();
  }

  /** Segments in the plane across an axis, along its two axes. */
  in(plane: Plane): Float32Array {
    const key = `${plane.axis} ${plane.slice}`;
    let found = this.known.get(key);
    if (!found) {
      const [width, height] = axesSize(plane.axis, this.shape);
      this.known.set(key, (found = outline(planeOf(this.mask, this.shape, plane), width, height)));
    }
    return found;
  }
}

export function strokeOutline(paint: CanvasRenderingContext2D, tile: Tile, lines: Float32Array, colour: Colour, ratio: number): void {
  clipped(paint, tile, () => {
    paint.beginPath();
    for (let i = 0; i < lines.length; i += 4) {
      paint.moveTo(tile.left + lines[i]! * tile.dx, tile.top + lines[i + 1]! * tile.dy);
      paint.lineTo(tile.left + lines[i + 2]! * tile.dx, tile.top + lines[i + 3]! * tile.dy);
    }
    paint.lineCap = "round";
    for (const [style, thick] of [["rgb(0 0 0 / 0.45)", 3.5], [`rgb(${colour.join(" ")})`, 2]] as const) {
      paint.strokeStyle = style;
      paint.lineWidth = thick * ratio;
      paint.stroke();
    }
  });
}

/** A line of 1, 2 or 5 cm beside the lower edge. */
export function strokeScale(paint: CanvasRenderingContext2D, perMillimetre: number, ratio: number): void {
  const { width, height } = paint.canvas;
  const length = [50, 20, 10, 5].find((mm) => mm * perMillimetre < 0.3 * width);
  if (!length) return;
  const [right, bottom] = [width - 16 * ratio, height - 44 * ratio];
  const left = right - length * perMillimetre;
  const words = length >= 10 ? `${length / 10} cm` : `${length} mm`;
  paint.beginPath();
  for (const [x, y] of [[left, -5], [left, 0], [right, 0], [right, -5]] as const) paint.lineTo(x, bottom + y * ratio);
  paint.font = `${12 * ratio}px system-ui, sans-serif`;
  paint.textAlign = "right";
  paint.lineJoin = "round";
  for (const [style, more] of [["rgb(0 0 0 / 0.75)", 3], ["#c9d1d9", 0]] as const) { // dark around it: it may lie on a bright skull
    paint.strokeStyle = paint.fillStyle = style;
    paint.lineWidth = (1.5 + more) * ratio;
    paint.stroke();
    if (more) paint.strokeText(words, right, bottom - 9 * ratio);
    else paint.fillText(words, right, bottom - 9 * ratio);
  } // prettier-ignore
}

/** A measured line with its length beside it. */
export function strokeLine(paint: CanvasRenderingContext2D, tile: Tile, line: Line, words: string, ratio: number): void {
  const at = ([a, b]: [number, number]) => [tile.left + a * tile.dx, tile.top + b * tile.dy] as const;
  const [from, to] = [at(line.from), at(line.to)];
  clipped(paint, tile, () => {
    for (const [style, thick] of [["rgb(0 0 0 / 0.6)", 4], ["#ffd479", 1.8]] as const) {
      paint.beginPath();
      paint.moveTo(...from);
      paint.lineTo(...to);
      for (const [x, y] of [from, to]) {
        paint.moveTo(x + 3 * ratio, y);
        paint.arc(x, y, 3 * ratio, 0, 2 * Math.PI);
      }
      paint.strokeStyle = style;
      paint.lineWidth = thick * ratio;
      paint.stroke();
    }
    paint.font = `600 ${13 * ratio}px system-ui, sans-serif`;
    paint.textAlign = "left";
    paint.strokeStyle = "rgb(0 0 0 / 0.8)";
    paint.lineWidth = 4 * ratio;
    paint.fillStyle = "#ffd479";
    const [x, y] = [Math.max(from[0], to[0]) + 8 * ratio, (from[1] + to[1]) / 2];
    paint.strokeText(words, x, y);
    paint.fillText(words, x, y);
  });
}

/** The place of the brush, as large as it paints. */
export function strokeBrush(paint: CanvasRenderingContext2D, tile: Tile, at: [a: number, b: number], radii: [number, number], ratio: number): void {
  clipped(paint, tile, () => {
    paint.beginPath();
    paint.ellipse(tile.left + at[0] * tile.dx, tile.top + at[1] * tile.dy, Math.abs(radii[0] * tile.dx), Math.abs(radii[1] * tile.dy), 0, 0, 2 * Math.PI);
    paint.strokeStyle = "#fff";
    paint.lineWidth = 1.2 * ratio;
    paint.stroke();
  });
}

function clipped(paint: CanvasRenderingContext2D, { box }: Tile, draw: () => void): void {
  paint.save();
  paint.beginPath();
  paint.rect(...box);
  paint.clip();
  draw();
  paint.restore();
}

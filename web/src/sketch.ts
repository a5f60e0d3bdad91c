// One slice with its outlines, drawn without NiiVue: for the report and for lists.

import type { Window } from "./core/intensity";
import { toBytes } from "./core/intensity";
import { channelOf, sliceOf, type Place, type Stack } from "./core/voxels";
import { outline } from "./outline";
import { REFERENCE, TUMOUR } from "./viewer/looks";

export interface Sketched {
  image: Stack;
  place: Place | null;
  window: Window;
  mask: Uint8Array;
  reference: Uint8Array | null;
}

/** `side`: pixels of the longer side. */
export function sketch({ image, place, window, mask, reference }: Sketched, slice: number, side: number): HTMLCanvasElement {
  const { width, height, channels } = image;
  const [row, column] = place?.spacing ?? [1, 1];
  const scale = side / Math.max(width * column, height * row);
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [Math.round(width * column * scale), Math.round(height * row * scale)];
  const paint = canvas.getContext("2d")!;
  const shown = channels === 3 ? 1 : 0;
  const plane = channelOf({ ...image, values: sliceOf(image, slice), slices: 1 }, shown);
  const grey = toBytes(plane.values, 1, { low: [window.low[shown]!], high: [window.high[shown]!] });
  paint.drawImage(asCanvas(grey, width, height), 0, 0, canvas.width, canvas.height);
  const area = width * height;
  for (const [own, colour] of [[reference, REFERENCE], [mask, TUMOUR]] as const) {
    if (!own) continue;
    const lines = outline(own.subarray(slice * area, (slice + 1) * area), width, height);
    paint.beginPath();
    for (let i = 0; i < lines.length; i += 4) {
      paint.moveTo(lines[i]! * column * scale, lines[i + 1]! * row * scale);
      paint.lineTo(lines[i + 2]! * column * scale, lines[i + 3]! * row * scale);
    }
    paint.strokeStyle = `rgb(${colour.join(" ")})`;
    paint.lineWidth = 2;
    paint.stroke();
  } // prettier-ignore
  return canvas;
}

function asCanvas(grey: Uint8Array, width: number, height: number): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const pixels = new ImageData(width, height);
  grey.forEach((value, at) => pixels.data.set([value, value, value, 255], 4 * at));
  canvas.getContext("2d")!.putImageData(pixels, 0, 0);
  return canvas;
}

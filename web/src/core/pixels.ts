// What the readers of PNG, JPEG and TIF have in common.

import { Refusal } from "./refusal";
import type { Values } from "./voxels";

export const MAX_PAGES = 1024;
export const KINDS_READ = "8-bit or unsigned 16-bit grayscale, 32-bit floating point, or RGB with 8 bits per channel";

/** One picture or page: pixels row by row, channels side by side. Of a palette also the indices and their colours. */
export interface Picture {
  values: Values;
  width: number;
  height: number;
  channels: number; // 1 or 3
  palette?: { indices: Uint8Array; colours: number[][] };
}

/** The pages of a file, and what its description says they are: axes and lengths, the slowest first. */
export interface Pages {
  kind: "PNG" | "JPEG" | "TIF";
  pages: Picture[];
  axes: [axis: string, length: number][];
}

/** The colours of pixels that are opaque. */
export function dropAlpha(values: Uint8Array, channels: number): Uint8Array {
  const kept = new Uint8Array((values.length / channels) * (channels - 1));
  for (let from = 0, to = 0; from < values.length; from += channels) {
    if (values[from + channels - 1] !== 255) throw new Refusal("has transparent pixels", "Flatten it onto a background");
    for (let k = 0; k < channels - 1; k++) kept[to++] = values[from + k]!;
  }
  return kept;
}

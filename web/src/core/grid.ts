// Slices to the square grid of the model, and back to their own. The Python side: brainseg.io.grid.

import { resize, type Plane } from "./resize";
import { rint } from "./rounding";
import { FLAIR, type Stack } from "./voxels";

export type Pixel = readonly [height: number, width: number]; // mm where they are known

/** The channels that a model was prepared with: all three, its FLAIR, or their mean. */
export function selectChannels(stack: Stack, wanted: string): Stack {
  if (stack.channels === 1 || wanted === "all") return stack;
  const count = stack.values.length / 3;
  const values = new (stack.values.constructor as new (length: number) => Stack["values"])(count);
  const whole = !(values instanceof Float32Array);
  for (let i = 0; i < count; i++) {
    const own = stack.values.subarray(3 * i, 3 * i + 3);
    const mean = (own[0]! + own[1]! + own[2]!) / 3;
    values[i] = wanted === "flair" ? own[FLAIR]! : whole ? rint(mean) : mean;
  }
  return { ...stack, values, channels: 1 };
}

/** One slice of bytes on the grid, with three channels; a single one is repeated. The longer side fills it, the rest is 0. */
export function toGrid(slice: Plane, side: number, pixel: Pixel): Uint8Array {
  const { width, height } = targetSize(slice.width, slice.height, side, pixel);
  const smaller = width * height < slice.width * slice.height;
  const same = width === slice.width && height === slice.height;
  const fitted = same ? slice : resize(slice, width, height, smaller ? "area" : "cubic");
  const [top, left] = [(side - height) >> 1, (side - width) >> 1];
  const result = new Uint8Array(side * side * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [from, to] = [(y * width + x) * fitted.channels, ((top + y) * side + left + x) * 3];
      for (let k = 0; k < 3; k++) result[to + k] = fitted.pixels[from + (fitted.channels === 3 ? k : 0)]!;
    }
  }
  return result;
}

/** The inverse for one channel: from the grid to a slice of its own size, without the padding. */
export function fromGrid(pixels: Uint8Array, side: number, width: number, height: number, pixel: Pixel): Uint8Array {
  const size = targetSize(width, height, side, pixel);
  const [top, left] = [(side - size.height) >> 1, (side - size.width) >> 1];
  const inner = new Uint8Array(size.width * size.height);
  for (let y = 0; y < size.height; y++) {
    const from = (top + y) * side + left;
    inner.set(pixels.subarray(from, from + size.width), y * size.width);
  }
  if (size.width === width && size.height === height) return inner;
  const smaller = height * width < size.height * size.width;
  return resize({ pixels: inner, ...size, channels: 1 }, width, height, smaller ? "area" : "linear").pixels;
}

function targetSize(width: number, height: number, side: number, pixel: Pixel): { width: number; height: number } {
  const [high, wide] = [height * pixel[0], width * pixel[1]];
  const scale = side / Math.max(high, wide);
  return { width: Math.max(1, rint(wide * scale)), height: Math.max(1, rint(high * scale)) };
}

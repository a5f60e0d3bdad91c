// Resizing as OpenCV does it, to the same byte: the network was trained on, and tested with, what OpenCV made of a slice.
// After modules/imgproc/src/resize.cpp: area with float32 sums, linear with 11-bit whole numbers, cubic in float32.

import { rint } from "./rounding";

const f = Math.fround;
const ONE = 2048; // the weight 1 of whole numbers

export interface Plane {
  pixels: Uint8Array;
  width: number;
  height: number;
  channels: number;
}

export type Method = "area" | "linear" | "cubic";

/** OpenCV's INTER_AREA, INTER_LINEAR or INTER_CUBIC for bytes. */
export function resize(image: Plane, width: number, height: number, method: Method): Plane {
  const [across, down] = [scale(image.width, width), scale(image.height, height)];
  const whole = isWhole(across) && isWhole(down);
  if ((method === "area" && across >= 1 && down >= 1) || (method === "linear" && whole && across === 2 && down === 2)) {
    return whole ? shrinkWhole(image, width, height, Math.round(across), Math.round(down)) : shrink(image, width, height, across, down);
  }
  return method === "cubic" ? enlarge(image, width, height) : interpolate(image, width, height, method);
}

function scale(from: number, to: number): number {
  return 1 / (to / from);
}

function isWhole(value: number): boolean {
  return Math.abs(value - Math.round(value)) < 2 ** -52;
}

/** Each pixel is the mean of a block of whole pixels. */
function shrinkWhole(image: Plane, width: number, height: number, across: number, down: number): Plane {
  const { pixels, channels } = image;
  const result = new Uint8Array(width * height * channels);
  const share = f(1 / (across * down));
  const halves = across === 2 && down === 2;
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let k = 0; k < channels; k++) {
        let sum = 0;
        for (let row = y * down; row < (y + 1) * down; row++) {
          for (let column = x * across; column < (x + 1) * across; column++) sum += pixels[(row * image.width + column) * channels + k]!;
        }
        result[at++] = halves ? (sum + 2) >> 2 : rint(f(sum * share));
      }
    }
  }
  return { pixels: result, width, height, channels };
}

export interface Weights {
  to: Int32Array;
  from: Int32Array;
  weight: Float32Array;
}

/** Which pixels of a row of `from` fall on which of `to`, and with what share. */
export function areaWeights(from: number, to: number, step: number): Weights {
  const found: [number, number, number][] = [];
  for (let n = 0; n < to; n++) {
    const [begin, end] = [n * step, n * step + step];
    const width = Math.min(step, from - begin);
    const last = Math.min(Math.floor(end), from - 1);
    const first = Math.min(Math.ceil(begin), last);
    if (first - begin > 1e-3) found.push([n, first - 1, (first - begin) / width]);
    for (let at = first; at < last; at++) found.push([n, at, 1 / width]);
    if (end - last > 1e-3) found.push([n, last, Math.min(Math.min(end - last, 1), width) / width]);
  }
  return {
    to: Int32Array.from(found, ([n]) => n),
    from: Int32Array.from(found, ([, at]) => at),
    weight: Float32Array.from(found, ([, , share]) => share),
  };
}

function shrink(image: Plane, width: number, height: number, across: number, down: number): Plane {
  const { pixels, channels } = image;
  const [columns, rows] = [areaWeights(image.width, width, across), areaWeights(image.height, height, down)];
  const result = new Uint8Array(width * height * channels);
  const length = width * channels;
  const sums = new Float32Array(length);
  for (let j = 0; j < rows.to.length; j++) {
    const line = shrinkRow(pixels, rows.from[j]! * image.width, channels, columns, length);
    const weight = rows.weight[j]!;
    const isFirst = j === 0 || rows.to[j] !== rows.to[j - 1];
    for (let x = 0; x < length; x++) sums[x] = isFirst ? weight * line[x]! : sums[x]! + f(weight * line[x]!);
    if (j + 1 === rows.to.length || rows.to[j + 1] !== rows.to[j]) {
      for (let x = 0; x < length; x++) result[rows.to[j]! * length + x] = Math.min(255, rint(sums[x]!));
    }
  }
  return { pixels: result, width, height, channels };
}

function shrinkRow(pixels: Uint8Array, first: number, channels: number, columns: Weights, length: number): Float32Array {
  const line = new Float32Array(length);
  for (let k = 0; k < columns.to.length; k++) {
    const [to, from, weight] = [columns.to[k]! * channels, (first + columns.from[k]!) * channels, columns.weight[k]!];
    for (let c = 0; c < channels; c++) line[to + c] = line[to + c]! + f(pixels[from + c]! * weight);
  }
  return line;
}

/** For each pixel of the result, the two places and whole-number weights of the pixels that it is made from. */
interface Taps {
  from: Int32Array;
  weight: Int32Array;
}

function taps(from: number, to: number, method: Method, isColumns: boolean): Taps {
  const step = scale(from, to);
  const result: Taps = { from: new Int32Array(to * 2), weight: new Int32Array(to * 2) };
  for (let n = 0; n < to; n++) {
    let [place, share] = method === "area" ? areaPlace(n, step, to / from) : pointPlace(n, step);
    // Beyond the edge OpenCV takes one column alone, but mixes a row with itself, which rounds otherwise.
    if (isColumns && (place < 0 || place >= from - 1)) [place, share] = [place < 0 ? 0 : from - 1, 0];
    [f(1 - share), share].forEach((weight, k) => {
      result.from[n * 2 + k] = Math.min(from - 1, Math.max(0, place + k));
      result.weight[n * 2 + k] = rint(f(weight * ONE));
    });
  }
  return result;
}

function pointPlace(n: number, step: number): [number, number] {
  const at = f((n + 0.5) * step - 0.5);
  const place = Math.floor(at);
  return [place, f(at - place)];
}

/** How OpenCV enlarges with INTER_AREA: linearly, from where the pixel begins. */
export function areaPlace(n: number, step: number, back: number): [number, number] {
  const place = Math.floor(n * step);
  const share = f(n + 1 - (place + 1) * back);
  return [place, share <= 0 ? 0 : f(share - Math.floor(share))];
}

function interpolate(image: Plane, width: number, height: number, method: Method): Plane {
  const { channels } = image;
  const [columns, rows] = [taps(image.width, width, method, true), taps(image.height, height, method, false)];
  const length = width * channels;
  const line = remember((row) => stretchRow(image, row, columns, width));
  const result = new Uint8Array(length * height);
  for (let y = 0; y < height; y++) {
    const [first, second] = [line(rows.from[2 * y]!), line(rows.from[2 * y + 1]!)];
    const [a, b] = [rows.weight[2 * y]!, rows.weight[2 * y + 1]!];
    for (let x = 0; x < length; x++) result[y * length + x] = (((a * (first[x]! >> 4)) >> 16) + ((b * (second[x]! >> 4)) >> 16) + 2) >> 2;
  }
  return { pixels: result, width, height, channels };
}

function stretchRow({ pixels, width: own, channels }: Plane, row: number, columns: Taps, width: number): Int32Array {
  const result = new Int32Array(width * channels);
  for (let x = 0, at = 0; x < width; x++) {
    for (let c = 0; c < channels; c++, at++) {
      const value = (k: 0 | 1) => pixels[(row * own + columns.from[2 * x + k]!) * channels + c]! * columns.weight[2 * x + k]!;
      result[at] = value(0) + value(1);
    }
  }
  return result;
}

/** Cubic, as OpenCV's builds for x86 do it, which leave it to Intel's IPP: in float32, without rounding between the passes. */
function enlarge(image: Plane, width: number, height: number): Plane {
  const { channels, pixels } = image;
  const [columns, rows] = [cubicTaps(image.width, width), cubicTaps(image.height, height)];
  const length = width * channels;
  const line = remember((row) => {
    const result = new Float32Array(length);
    const first = row * image.width;
    for (let at = 0; at < length; at++) {
      const [x, c] = [Math.floor(at / channels), at % channels];
      result[at] = mix(columns, x, (k) => pixels[(first + columns.from[4 * x + k]!) * channels + c]!);
    }
    return result;
  });
  const result = new Uint8Array(length * height);
  for (let y = 0; y < height; y++) {
    const used = [0, 1, 2, 3].map((k) => line(rows.from[4 * y + k]!));
    for (let x = 0; x < length; x++) result[y * length + x] = Math.min(255, Math.max(0, rint(mix(rows, y, (k) => used[k]![x]!))));
  }
  return { pixels: result, width, height, channels };
}

interface CubicTaps {
  from: Int32Array;
  weight: Float32Array;
}

function cubicTaps(from: number, to: number): CubicTaps {
  const result: CubicTaps = { from: new Int32Array(4 * to), weight: new Float32Array(4 * to) };
  for (let n = 0; n < to; n++) {
    const at = ((n + 0.5) * from) / to - 0.5;
    const place = Math.floor(at);
    cubicWeights(at - place).forEach((weight, k) => {
      result.from[4 * n + k] = Math.min(from - 1, Math.max(0, place + k - 1));
      result.weight[4 * n + k] = weight;
    });
  }
  return result;
}

function cubicWeights(x: number): number[] {
  const A = -0.75;
  const middle = (at: number) => ((A + 2) * at - (A + 3)) * at * at + 1;
  const [first, second, third] = [((A * (x + 1) - 5 * A) * (x + 1) + 8 * A) * (x + 1) - 4 * A, middle(x), middle(1 - x)] as const;
  return [first, second, third, 1 - first - second - third];
}

/** The sum of four weighted values, in pairs. */
function mix({ weight }: CubicTaps, n: number, value: (k: number) => number): number {
  const part = (k: number) => f(value(k) * weight[4 * n + k]!);
  return f(f(part(0) + part(1)) + f(part(2) + part(3)));
}

/** The lines that were made last: a row of the result needs four at most, and the next one nearly the same. */
function remember<T>(make: (row: number) => T): (row: number) => T {
  const known = new Map<number, T>();
  return (row) => {
    let line = known.get(row);
    if (!line) known.set(row, (line = make(row)));
    if (known.size > 8) known.delete(known.keys().next().value!);
    return line;
  };
}

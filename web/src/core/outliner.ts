// From a stack of slices to probabilities on the model's grid: prepared, predicted, mirrored, calibrated.
// The Python side: brainseg.inference.outlining and probabilities.

import { selectChannels, toGrid, type Pixel } from "./grid";
import { findWindow, stackToBytes } from "./intensity";
import type { Facts } from "./modelFile";
import { Refusal } from "./refusal";
import { rint } from "./rounding";
import { sliceOf, type Stack } from "./voxels";

const f = Math.fround;

/** The network: a slice among its neighbours (1, side, side, depth) to probabilities (1, side, side, answers). */
export interface Network {
  side: number;
  depth: number; // channels of the input: of `slices` slices
  answers: number; // slices that an answer is about: 1 or all of the input
  run(input: Float32Array): Promise<Float32Array>;
}

export interface Watch {
  progress?: (done: number, all: number) => void;
  cancelled?: () => boolean;
}

export class CancelledError extends Error {}

/** Slices as the network takes them: bytes, three channels each. */
export function prepare(stack: Stack, facts: Facts, side: number, pixel: Pixel): Uint8Array[] {
  const { channels, window } = facts.model.preprocess;
  let shown = selectChannels(stack, channels);
  if (!(shown.values instanceof Uint8Array)) shown = stackToBytes(shown, findWindow(shown, window));
  const { width, height } = shown;
  return Array.from({ length: shown.slices }, (_, s) =>
    toGrid({ pixels: sliceOf(shown, s) as Uint8Array, width, height, channels: shown.channels }, side, pixel),
  );
}

/** For every slice on the grid, in 255ths: the probability, and how far the two passes of a mirrored model are apart. */
export interface Probabilities {
  levels: Uint8Array;
  apart: Uint8Array | null; // null of a model that is not mirrored
}

export async function predict(images: Uint8Array[], network: Network, facts: Facts, watch: Watch = {}): Promise<Probabilities> {
  const slices = network.depth / facts.model.contract.channels.length;
  const around = windows(images.length, slices, network.answers);
  const area = network.side ** 2;
  const sum = new Uint16Array(images.length * area);
  const apart = new Uint16Array(images.length * area);
  const answered = new Uint16Array(images.length);
  for (const [place, window] of around.entries()) {
    if (watch.cancelled?.()) throw new CancelledError();
    const passes = await ask(window.map((n) => images[n]!), network, facts.rule.mirror);
    const places = network.answers === 1 ? [place] : window;
    places.forEach((slice, row) => {
      if (places.indexOf(slice) < row) return; // of a repeated slice only the first answer counts
      add(passes, row, network.answers, slice, sum, apart);
      answered[slice]!++;
    });
    watch.progress?.(Math.min(images.length, Math.max(...window) + 1), images.length);
  }
  const scaled = calibration(facts.rule.temperature ?? 1, facts.rule.bias ?? 0, facts.rule.skew ?? 0);
  const mean = (total: number, at: number) => rint(total / answered[Math.floor(at / area)]!);
  return {
    levels: Uint8Array.from(sum, (total, at) => scaled[mean(total, at)]!),
    apart: facts.rule.mirror ? Uint8Array.from(apart, mean) : null,
  };
}

/** The slices that are one input: each between its neighbours, the ends repeated; or windows that overlap by half. */
export function windows(slices: number, size: number, answers: number): number[][] {
  const reach = Array.from({ length: size }, (_, n) => n);
  if (answers === 1) {
    const clip = (n: number) => Math.min(slices - 1, Math.max(0, n));
    return Array.from({ length: slices }, (_, s) => reach.map((n) => clip(s + n - (size >> 1))));
  }
  const starts: number[] = [];
  for (let start = 0; start < slices - size; start += Math.max(1, size >> 1)) starts.push(start);
  starts.push(Math.max(0, slices - size));
  return starts.map((start) => reach.map((n) => Math.min(start + n, slices - 1)));
}

/** Beta calibration of probabilities in 255ths (without a skew Platt scaling), as inference/probabilities.py; 0 stays 0. */
export function calibration(temperature: number, bias: number, skew: number): Uint8Array {
  if (temperature === 1 && bias === 0 && skew === 0) return Uint8Array.from({ length: 256 }, (_, n) => n);
  return Uint8Array.from({ length: 256 }, (_, n) => {
    const p = Math.min(n, 254.5) / 255;
    const odds = (1 / p - 1) ** (1 / temperature) * (4 * p * (1 - p)) ** (-skew / temperature); // of no tumour
    return n && rint(255 / (1 + odds * Math.exp(-bias)));
  });
}

/** What the network says of a window, and of its mirror image, turned back. */
async function ask(window: Uint8Array[], network: Network, mirrored: boolean): Promise<Float32Array[]> {
  const passes = [await network.run(stacked(window, network.side, false))];
  if (mirrored) passes.push(turned(await network.run(stacked(window, network.side, true)), network.side, network.answers));
  return passes;
}

/** The slices of a window, one after another along the channels. */
function stacked(window: Uint8Array[], side: number, mirrored: boolean): Float32Array {
  const depth = 3 * window.length;
  const input = new Float32Array(side * side * depth);
  window.forEach((image, n) => {
    for (let y = 0; y < side; y++) {
      for (let x = 0; x < side; x++) {
        const from = (y * side + (mirrored ? side - 1 - x : x)) * 3;
        const to = (y * side + x) * depth + 3 * n;
        for (let k = 0; k < 3; k++) input[to + k] = image[from + k]!;
      }
    }
  });
  return input;
}

function turned(answer: Float32Array, side: number, answers: number): Float32Array {
  const result = new Float32Array(answer.length);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      for (let k = 0; k < answers; k++) result[(y * side + x) * answers + k] = answer[(y * side + side - 1 - x) * answers + k]!;
    }
  }
  return result;
}

/** Add one slice of an answer, in 255ths, to the sums. */
function add(passes: Float32Array[], row: number, answers: number, slice: number, sum: Uint16Array, apart: Uint16Array): void {
  const [first, second] = passes;
  const area = first!.length / answers;
  for (let at = 0; at < area; at++) {
    const [a, b] = [first![at * answers + row]!, second?.[at * answers + row]];
    const level = rint(f(255 * (b === undefined ? a : f(f(a + b) / 2))));
    if (!(level >= 0 && level <= 255)) {
      throw new Refusal(`The network's answer of slice ${slice + 1} is not a number`, "Look at this image; if others fail too, the model is broken");
    }
    sum[slice * area + at]! += level;
    if (b !== undefined) apart[slice * area + at]! += rint(255 * Math.abs(a - b));
  }
}

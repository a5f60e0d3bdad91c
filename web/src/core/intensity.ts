// Intensities of any depth to 0..255, by one window for the whole volume. The Python side: brainseg.io.intensity.

import { percentile, rint } from "./rounding";
import { sliceOf, type Stack, type Values } from "./voxels";

/** The intensities that become 0 and 255, for each channel. */
export interface Window {
  low: number[];
  high: number[];
}

/** Percentiles of the intensities of a volume, channel by channel, without the lowest value, which is usually air. */
export function findWindow(stack: Stack, [low, high]: readonly [number, number]): Window {
  const found: Window = { low: [], high: [] };
  for (let channel = 0; channel < stack.channels; channel++) {
    const { at, count } = ranks(stack, channel);
    found.low.push(percentile(at, count, low));
    found.high.push(percentile(at, count, high));
  }
  return found;
}

/** One slice to bytes: `low` becomes 0, `high` 255; values outside are clipped. A channel of an empty window becomes 0. */
export function toBytes(values: Values, channels: number, window: Window): Uint8Array {
  const bytes = new Uint8Array(values.length);
  for (let channel = 0; channel < channels; channel++) {
    const [low, width] = [window.low[channel]!, window.high[channel]! - window.low[channel]!];
    if (!(width > 0)) continue;
    for (let i = channel; i < values.length; i += channels) {
      bytes[i] = rint(255 * Math.min(1, Math.max(0, (values[i]! - low) / width)));
    }
  }
  return bytes;
}

/** All slices to bytes. */
export function stackToBytes(stack: Stack, window: Window): Stack {
  const values = new Uint8Array(stack.values.length);
  const length = values.length / stack.slices;
  for (let s = 0; s < stack.slices; s++) values.set(toBytes(sliceOf(stack, s), stack.channels, window), s * length);
  return { ...stack, values };
}

interface Ranks {
  at: (rank: number) => number;
  count: number;
}

function ranks(stack: Stack, channel: number): Ranks {
  return stack.values instanceof Float32Array ? sortedRanks(stack, channel) : countedRanks(stack, channel);
}

function sortedRanks({ values, channels }: Stack, channel: number): Ranks {
  const own = new Float32Array(values.length / channels);
  for (let i = 0; i < own.length; i++) own[i] = values[i * channels + channel]!;
  own.sort();
  let first = 0;
  while (first < own.length && own[first] === own[0]) first++;
  const above = first < own.length ? own.subarray(first) : own;
  return { at: (rank) => above[rank]!, count: above.length };
}

function countedRanks({ values, channels }: Stack, channel: number): Ranks {
  const least = values instanceof Int16Array ? -(2 ** 15) : 0;
  const counts = new Float64Array(2 ** 16);
  for (let i = channel; i < values.length; i += channels) counts[values[i]! - least]!++;
  const used = counts.reduce((sum, count) => sum + Number(count > 0), 0);
  if (used > 1) counts[counts.findIndex((count) => count > 0)] = 0;
  const ends = counts;
  for (let i = 1; i < ends.length; i++) ends[i]! += ends[i - 1]!;
  return { at: (rank) => firstAbove(ends, rank) + least, count: ends[ends.length - 1]! };
}

/** The first place whose value is above `rank`: np.searchsorted(side="right"). */
function firstAbove(ends: Float64Array, rank: number): number {
  let [low, high] = [0, ends.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ends[middle]! > rank) high = middle;
    else low = middle + 1;
  }
  return low;
}

// What the readers give and the network takes: stacks of slices, and where they lie.

import type { Origin } from "./dicomSeg";

export type Values = Uint8Array | Uint16Array | Int16Array | Float32Array;
export type Matrix = number[][];
export type Triple = [number, number, number];

/** Slices one after another, each row by row, channels of a pixel side by side. Of a volume: feet to head, front to back, right to left. */
export interface Stack {
  values: Values;
  slices: number;
  height: number;
  width: number;
  channels: number; // 1, or 3: pre-contrast, FLAIR, post-contrast
}

/** The grid of a file: voxel (i, j, k) to millimetres, RAS+, and its number of voxels. */
export interface Geometry {
  affine: Matrix; // 4 x 4
  shape: Triple;
}

/** Where the slices of a stack lie. `spacing`: mm between rows, columns, slices. */
export interface Place {
  spacing: Triple;
  geometry: Geometry;
}

export type Kind = "picture" | "slices" | "tif" | "nifti" | "nrrd" | "metaimage" | "mgh" | "dicom";

/** What is outlined together. */
export interface Case {
  name: string;
  kind: Kind;
  stack: Stack;
  place: Place | null; // null where the file does not say it
  numbers: number[]; // of the slices, ascending; those with a gap between them are no neighbours
  channels: string[]; // the sequence in each of the model's three channels
  remarks: string[]; // for the reader of the answer: what was assumed or passed over
  origin: Origin | null; // what a DICOM SEG refers to, where one can be made
  noSeg: string; // why none can be made of a DICOM series
}

export const CHANNELS = ["pre-contrast", "FLAIR", "post-contrast"];
export const FLAIR = 1;

/** What the channels of a lone image are: the model's own three, or FLAIR where there is one, or three that are equal. */
export function channelNames(stack: Stack): string[] {
  return isGray(stack) ? CHANNELS.map(() => CHANNELS[FLAIR]!) : CHANNELS;
}

/** Pixels in one slice, all channels together. */
export function sliceLength(stack: Stack): number {
  return stack.height * stack.width * stack.channels;
}

/** The values of one slice, not copied. */
export function sliceOf(stack: Stack, index: number): Values {
  const length = sliceLength(stack);
  return stack.values.subarray(index * length, (index + 1) * length);
}

/** Whether there is one channel, or all three are equal everywhere: gray that was saved as RGB. */
export function isGray({ values, channels }: Stack): boolean {
  if (channels === 1) return true;
  for (let i = 0; i < values.length; i += 3) {
    if (values[i] !== values[i + 1] || values[i] !== values[i + 2]) return false;
  }
  return true;
}

/** One channel of a stack. */
export function channelOf(stack: Stack, index: number): Stack {
  if (stack.channels === 1) return stack;
  const count = stack.values.length / stack.channels;
  const values = new (stack.values.constructor as new (length: number) => Values)(count);
  for (let i = 0; i < count; i++) values[i] = stack.values[i * stack.channels + index]!;
  return { ...stack, values, channels: 1 };
}

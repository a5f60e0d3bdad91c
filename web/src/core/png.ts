// PNG by fast-png, with every checksum looked at.

import { decode, type DecodedPng } from "fast-png";

import { dropAlpha, KINDS_READ, type Picture } from "./pixels";
import { Refusal } from "./refusal";

export function readPng(bytes: Uint8Array): Picture {
  let found: DecodedPng;
  try {
    found = decode(bytes, { checkCrc: true });
  } catch {
    throw new Refusal("is a PNG that is damaged or of a kind that is not read", `Restore it, or save it as ${KINDS_READ}`);
  }
  if (isAnimated(bytes)) throw new Refusal("holds more than one page", "Save one slice per file");
  const { width, height, channels, depth } = found;
  if (found.palette) return withPalette(found, found.palette);
  if (depth === 1) return { values: bits(found, 255), width, height, channels: 1 };
  if (depth < 8 || (depth === 16 && channels !== 1)) throw new Refusal("has 2-, 4- or 16-bit pixels", `Save it as ${KINDS_READ}`);
  if (found.data instanceof Uint16Array) return { values: found.data, width, height, channels: 1 };
  const values = Uint8Array.from(found.data);
  return channels % 2 ? { values, width, height, channels } : { values: dropAlpha(values, channels), width, height, channels: channels - 1 };
}

function withPalette(found: DecodedPng, palette: number[][]): Picture {
  const indices = found.depth === 8 ? Uint8Array.from(found.data) : bits(found, 1);
  const { width, height } = found;
  const colours = palette.map(([red, green, blue, alpha = 255]) => [red!, green!, blue!, alpha]);
  const values = new Uint8Array(4 * indices.length);
  indices.forEach((index, at) => values.set(colours[index] ?? [0, 0, 0, 255], 4 * at));
  const plain = colours.map((colour) => colour.slice(0, 3));
  return { values: dropAlpha(values, 4), width, height, channels: 3, palette: { indices, colours: plain } };
}

/** Values of 1, 2 or 4 bits, each row beginning with a byte of its own; the largest times `scale` of one bit. */
function bits({ data, width, height, depth }: DecodedPng, scale: number): Uint8Array {
  const row = Math.ceil((width * depth) / 8);
  const values = new Uint8Array(width * height);
  for (let at = 0; at < values.length; at++) {
    const [y, bit] = [Math.floor(at / width), (at % width) * depth];
    const byte = data[y * row + (bit >> 3)]!;
    values[at] = ((byte >> (8 - depth - (bit & 7))) & (2 ** depth - 1)) * scale;
  }
  return values;
}

function isAnimated(bytes: Uint8Array): boolean {
  return new TextDecoder("latin1").decode(bytes.subarray(0, 4096)).includes("acTL");
}

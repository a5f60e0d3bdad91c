// Compressed DICOM frames: run lengths here, JPEG lossless, JPEG-LS and JPEG 2000 by libraries that are fetched when needed.

import type { SliceHeader } from "./dicomHeader";
import { Refusal } from "./refusal";

type Pixels = Uint8Array | Uint16Array;

const DECOMPRESS = "Decompress each file: gdcmconv --raw IN OUT (GDCM)";
const RLE = "1.2.840.10008.1.2.5";
const LOSSLESS = ["1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"];
const JPEG_LS = ["1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"];
const JPEG_2000 = ["1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"];

export async function decodeFrame(slice: SliceHeader): Promise<Pixels> {
  const fragments = (slice.dataset["7FE00010"]?.Value ?? []).filter((part): part is ArrayBuffer => part instanceof ArrayBuffer);
  if (!fragments.length) throw new Refusal(`${slice.name}: holds no pixels`, DECOMPRESS);
  const frame = joined(fragments);
  try {
    if (slice.syntax === RLE) return decodeRle(frame, slice);
    if (LOSSLESS.includes(slice.syntax)) return await decodeLossless(frame, slice);
    if (JPEG_LS.includes(slice.syntax)) return await decodeWasm(frame, slice, loadCharls);
    if (JPEG_2000.includes(slice.syntax)) return await decodeWasm(frame, slice, loadOpenJpeg);
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal(`${slice.name}: its compressed pixels cannot be decoded`, `Restore it, or ${DECOMPRESS.toLowerCase()}`);
  }
  throw new Refusal(`${slice.name}: is compressed in a way that is not read here`, DECOMPRESS);
}

function joined(parts: ArrayBuffer[]): Uint8Array {
  const result = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    result.set(new Uint8Array(part), at);
    at += part.byteLength;
  }
  return result;
}

/** PackBits, one run for each byte of a value, the high byte first (PS3.5, annex G). */
function decodeRle(frame: Uint8Array, { size: [rows, columns], allocated }: SliceHeader): Pixels {
  const view = new DataView(frame.buffer);
  const count = rows * columns;
  const segments = view.getUint32(0, true);
  if (segments !== allocated / 8) throw new Error("other segments than bytes");
  const values = allocated === 8 ? new Uint8Array(count) : new Uint16Array(count);
  for (let n = 0; n < segments; n++) {
    const end = n + 1 < segments ? view.getUint32(8 + 4 * n, true) : frame.length;
    const bytes = unpackBits(frame.subarray(view.getUint32(4 + 4 * n, true), end), count);
    for (let at = 0; at < count; at++) values[at] = values[at]! * 256 + bytes[at]!;
  }
  return values;
}

function unpackBits(packed: Uint8Array, count: number): Uint8Array {
  const bytes = new Uint8Array(count);
  let to = 0;
  for (let at = 0; at < packed.length && to < count; ) {
    const head = (packed[at++]! << 24) >> 24;
    if (head >= 0) {
      bytes.set(packed.subarray(at, at + Math.min(head + 1, count - to)), to);
      at += head + 1;
      to += head + 1;
    } else if (head !== -128) {
      bytes.fill(packed[at++]!, to, to + 1 - head);
      to += 1 - head;
    }
  }
  if (to < count) throw new Error("cut short");
  return bytes;
}

async function decodeLossless(frame: Uint8Array, { allocated }: SliceHeader): Promise<Pixels> {
  const { Decoder } = await import("jpeg-lossless-decoder-js");
  const decoded = new Decoder().decompress(frame.slice().buffer);
  return allocated === 8 ? new Uint8Array(decoded) : new Uint16Array(decoded);
}

interface WasmDecoder {
  getEncodedBuffer(length: number): Uint8Array;
  decode(): void;
  getDecodedBuffer(): Uint8Array;
  getFrameInfo(): { width: number; height: number; componentCount: number; bitsPerSample: number };
  delete(): void;
}

async function decodeWasm(frame: Uint8Array, slice: SliceHeader, load: () => Promise<WasmDecoder>): Promise<Pixels> {
  const decoder = await load();
  try {
    decoder.getEncodedBuffer(frame.length).set(frame);
    decoder.decode();
    const { width, height, componentCount } = decoder.getFrameInfo();
    if (height !== slice.size[0] || width !== slice.size[1] || componentCount !== 1) throw new Error("another size than the header's");
    const bytes = decoder.getDecodedBuffer().slice();
    return slice.allocated === 8 ? bytes : new Uint16Array(bytes.buffer);
  } finally {
    decoder.delete();
  }
}

type Factory = (settings: { locateFile: () => string }) => Promise<Record<string, new () => WasmDecoder>>;

async function loadCharls(): Promise<WasmDecoder> {
  const [{ default: factory }, { default: url }] = await Promise.all([import("@cornerstonejs/codec-charls/decodewasmjs"), import("@cornerstonejs/codec-charls/decodewasm?url")]);
  const library = await (factory as Factory)({ locateFile: () => url });
  return new library.JpegLSDecoder!();
}

async function loadOpenJpeg(): Promise<WasmDecoder> {
  const [{ default: factory }, { default: url }] = await Promise.all([import("@cornerstonejs/codec-openjpeg/decodewasmjs"), import("@cornerstonejs/codec-openjpeg/decodewasm?url")]);
  const library = await (factory as Factory)({ locateFile: () => url });
  return new library.J2KDecoder!();
}

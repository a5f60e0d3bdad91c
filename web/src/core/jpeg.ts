// JPEG by the browser's own decoder, in the colours of the file: what is asked of it is what libjpeg does everywhere.

import type { Picture } from "./pixels";
import { Refusal } from "./refusal";

const EXIF = 0xe1;
const ORIENTATION = 0x0112;
const SHORTEST = 2; // bytes of a segment without content: its length

export async function readJpeg(bytes: Uint8Array): Promise<Picture> {
  const { components, orientation } = inspect(bytes);
  if (components !== 1 && components !== 3) throw new Refusal("is a JPEG in CMYK", "Save it in RGB or in greys");
  if (orientation !== 1) throw new Refusal("is stored turned or mirrored (Exif orientation)", "Save it upright");
  if (typeof createImageBitmap === "undefined") throw new Refusal("is a JPEG, which only a browser reads", "Save it as PNG");
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(new Blob([bytes as BlobPart], { type: "image/jpeg" }), { colorSpaceConversion: "none" });
  } catch {
    throw new Refusal("is a JPEG that is damaged or of a kind that is not read", "Restore it, or save it as PNG");
  }
  const { width, height } = bitmap;
  const paint = new OffscreenCanvas(width, height).getContext("2d")!;
  paint.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = paint.getImageData(0, 0, width, height);
  const values = new Uint8Array(width * height * components);
  for (let at = 0; at < values.length; at++) values[at] = data[components === 1 ? 4 * at : Math.floor(at / 3) * 4 + (at % 3)]!;
  return { values, width, height, channels: components };
}

/** The number of colours, and how the picture is turned, from the segments before the pixels. */
function inspect(bytes: Uint8Array): { components: number; orientation: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let orientation = 1;
  for (let at = 2; at + 10 < bytes.length && view.getUint8(at) === 0xff; ) {
    const [mark, length] = [view.getUint8(at + 1), view.getUint16(at + 2)];
    const isFrame = mark >= 0xc0 && mark <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(mark);
    if (isFrame) return { components: view.getUint8(at + 9), orientation };
    if (mark === EXIF) orientation = readOrientation(bytes.slice(at + 4, at + 2 + length)) ?? orientation;
    at += 2 + Math.max(length, SHORTEST);
  }
  throw new Refusal("is a JPEG that is damaged or of a kind that is not read", "Restore it, or save it as PNG");
}

function readOrientation(segment: Uint8Array): number | null {
  if (new TextDecoder("latin1").decode(segment.subarray(0, 6)) !== "Exif\0\0" || segment.length < 20) return null;
  const view = new DataView(segment.buffer, 6);
  const little = view.getUint8(0) === 0x49;
  const first = view.getUint32(4, little);
  for (let n = 0; first + 2 + 12 * n + 12 <= view.byteLength && n < view.getUint16(first, little); n++) {
    const at = first + 2 + 12 * n;
    if (view.getUint16(at, little) === ORIENTATION) return view.getUint16(at + 8, little);
  }
  return null;
}

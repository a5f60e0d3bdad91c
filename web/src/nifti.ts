// The answer's volumes: base64 of gzipped NIfTI-1, written by our own server, uint8 or RGB24.

const RGB = 128;
const HEADER = 352;

/** One volume: header and voxels, x fastest. `channels` is 1, or 3 when its voxels are colours. */
export interface Volume {
  header: Uint8Array;
  voxels: Uint8Array;
  channels: number;
  shape: [number, number, number];
}

export async function read(base64: string): Promise<Volume> {
  const packed = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const view = new DataView(bytes.buffer);
  const shape: [number, number, number] = [view.getInt16(42, true), view.getInt16(44, true), Math.max(1, view.getInt16(46, true))];
  const channels = view.getInt16(70, true) === RGB ? 3 : 1;
  const offset = view.getFloat32(108, true);
  const voxels = bytes.subarray(offset);
  if (view.getInt32(0, true) !== 348 || voxels.length !== shape[0] * shape[1] * shape[2] * channels) {
    throw new Error("not a NIfTI volume of bytes");
  }
  return { header: bytes.subarray(0, HEADER), voxels, channels, shape };
}

/** One channel of a volume as a gray one. */
export function channel(volume: Volume, index: number): Volume {
  if (volume.channels === 1) return volume;
  const voxels = new Uint8Array(volume.voxels.length / volume.channels);
  for (let i = 0; i < voxels.length; i++) voxels[i] = volume.voxels[i * volume.channels + index]!;
  return { ...volume, voxels, channels: 1 };
}

/** The bytes of an uncompressed NIfTI file of a gray volume. */
export function file(volume: Volume): ArrayBuffer {
  const bytes = new Uint8Array(HEADER + volume.voxels.length);
  bytes.set(volume.header);
  bytes.set(volume.voxels, HEADER);
  const view = new DataView(bytes.buffer);
  view.setInt16(70, 2, true); // uint8
  view.setInt16(72, 8, true);
  view.setFloat32(108, HEADER, true);
  view.setFloat32(112, 1, true); // slope and intercept
  view.setFloat32(116, 0, true);
  view.setUint32(348, 0); // no extension
  return bytes.buffer;
}

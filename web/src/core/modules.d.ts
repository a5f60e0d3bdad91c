// Libraries without types of their own, as far as they are used here.

declare module "dcmjs" {
  export const data: {
    DicomMessage: {
      readFile(buffer: ArrayBuffer, options?: { ignoreErrors?: boolean }): { meta: object; dict: object };
    };
    DicomMetaDictionary: { nameMap: Record<string, { tag: string; vr: string }>; unpunctuateTag(tag: string): string };
    BitArray: { pack(pixels: Uint8Array): Uint8Array };
    /** Elements by their names, with `_meta` and `_vrMap`, as a file. */
    datasetToDict(dataset: object): { write(): ArrayBuffer };
  };
}

declare module "@cornerstonejs/codec-charls/decodewasmjs";
declare module "@cornerstonejs/codec-openjpeg/decodewasmjs";

declare module "jpeg-lossless-decoder-js" {
  export class Decoder {
    decompress(frame: ArrayBuffer): ArrayBuffer;
  }
}

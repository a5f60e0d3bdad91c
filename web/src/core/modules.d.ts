// Libraries without types of their own, as far as they are used here.

declare module "dcmjs" {
  export const data: {
    DicomMessage: {
      readFile(buffer: ArrayBuffer, options?: { ignoreErrors?: boolean }): { meta: object; dict: object };
    };
  };
}

declare module "@cornerstonejs/codec-charls/decodewasmjs";
declare module "@cornerstonejs/codec-openjpeg/decodewasmjs";

declare module "jpeg-lossless-decoder-js" {
  export class Decoder {
    decompress(frame: ArrayBuffer): ArrayBuffer;
  }
}

// TIF by geotiff.js: pages, and what the description says they are.

import { fromArrayBuffer, type GeoTIFFImage } from "geotiff";

import { dropAlpha, KINDS_READ, MAX_PAGES, type Pages, type Picture } from "./pixels";
import { Refusal } from "./refusal";

const COMPRESSIONS = [1, 5, 8, 32946, 32773]; // none, LZW, deflate by two numbers, PackBits: what is decoded without loss
const [NEGATIVE, GREYS, COLOURS, PALETTE] = [0, 1, 2, 3];
const BITS_PER_SAMPLE = 258; // the tag
const SAVE = `Save it as ${KINDS_READ}`;

export async function readTif(bytes: Uint8Array): Promise<Omit<Pages, "kind">> {
  checkChain(bytes);
  try {
    const file = await fromArrayBuffer(bytes.slice().buffer);
    const count = await file.getImageCount();
    const pages: Picture[] = [];
    for (let n = 0; n < count; n++) pages.push(await readPage(await file.getImage(n)));
    const description = await (await file.getImage(0)).fileDirectory.loadValue("ImageDescription");
    return { pages, axes: readAxes(String(description ?? "").replace(/\0+$/, ""), pages[0]!.palette ? 1 : pages[0]!.channels) };
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal("is a TIFF that is damaged or of a kind that is not read", `Restore it, or ${SAVE.toLowerCase()}`);
  }
}

/** Refuse pages that follow each other in a circle, and more than are accepted, before any is decoded. */
function checkChain(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const little = bytes[0] === 0x49;
  const seen = new Set<number>();
  for (let at = view.getUint32(4, little); at; ) {
    if (seen.has(at) || at + 6 > bytes.length) throw new Refusal("is a TIFF that is damaged", "Restore it, or save it again");
    if (seen.add(at).size > MAX_PAGES) throw new Refusal(`holds more than ${MAX_PAGES} pages`, "Split it into one file per patient");
    const next = at + 2 + 12 * view.getUint16(at, little);
    at = next + 4 <= bytes.length ? view.getUint32(next, little) : 0;
  }
}

interface Form {
  bits: number;
  isFloat: boolean;
  samples: number;
  photometric: number;
  extra: number;
}

async function readPage(image: GeoTIFFImage): Promise<Picture> {
  const form = await readForm(image);
  const { bits, isFloat, samples, photometric } = form;
  const [width, height] = [image.getWidth(), image.getHeight()];
  if (!image.fileDirectory.hasTag("BitsPerSample")) image.fileDirectory.actualizedFields.set(BITS_PER_SAMPLE, [1]); // the standard's default
  const values = (await image.readRasters({ interleave: true })) as unknown as Picture["values"];
  if (photometric === PALETTE) return withPalette(Uint8Array.from(values), width, height, (await image.fileDirectory.loadValue("ColorMap")) ?? []);
  if (isFloat || bits === 16) return { values, width, height, channels: 1 };
  let pixels = Uint8Array.from(values);
  if (bits === 1) pixels = pixels.map((value) => 255 * value);
  if (photometric === NEGATIVE) pixels = pixels.map((value) => 255 - value);
  if (samples % 2) return { values: pixels, width, height, channels: samples };
  if (form.extra === 0) pixels = pixels.map((value, at) => (at % samples === samples - 1 ? 255 : value)); // no alpha, to be ignored
  return { values: dropAlpha(pixels, samples), width, height, channels: samples - 1 };
}

/** What the pixels are; refused is what could not be told exactly. */
async function readForm(image: GeoTIFFImage): Promise<Form> {
  const tags = image.fileDirectory;
  const list = async (name: Parameters<typeof tags.loadValue>[0], usual: number) => {
    const value = (await tags.loadValue(name)) as ArrayLike<number> | number | undefined;
    return value === undefined ? [usual] : typeof value === "number" ? [value] : Array.from(value);
  };
  const [allBits, formats] = [await list("BitsPerSample", 1), await list("SampleFormat", 1)];
  const one = async (name: Parameters<typeof list>[0], usual: number) => (await list(name, usual))[0]!;
  const form: Form = {
    bits: Math.max(...allBits), isFloat: Math.max(...formats) === 3, samples: await one("SamplesPerPixel", 1),
    photometric: await one("PhotometricInterpretation", GREYS), extra: await one("ExtraSamples", 2),
  }; // prettier-ignore
  if (!COMPRESSIONS.includes(await one("Compression", 1))) throw new Refusal("is a TIFF compressed in a way that is not read here", "Save it without compression, or with LZW");
  if ((await one("Orientation", 1)) !== 1) throw new Refusal("is stored turned or mirrored", "Save it upright");
  if ((await one("FillOrder", 1)) !== 1) throw new Refusal("is a TIFF whose bits run the other way", SAVE);
  const swapped = (await one("Predictor", 1)) !== 1 && form.bits > 8 && !image.littleEndian;
  if (swapped || new Set(allBits).size > 1 || new Set(formats).size > 1 || !isRead(form, formats[0]!)) {
    if (form.photometric === NEGATIVE && form.bits > 8) throw new Refusal("is a negative (0 is white)", "Save it with 0 as black");
    throw new Refusal(`has ${form.bits}-bit pixels of a kind that is not read`, SAVE);
  }
  return form;
}

function isRead({ bits, isFloat, samples, photometric }: Form, format: number): boolean {
  if (photometric === PALETTE) return bits === 8 && samples === 1 && format === 1;
  if (photometric === COLOURS) return bits === 8 && format === 1 && (samples === 3 || samples === 4);
  if (isFloat) return bits === 32 && samples === 1 && photometric === GREYS;
  if (photometric !== GREYS && photometric !== NEGATIVE) return false;
  if (format !== 1 || (bits === 16 && photometric === NEGATIVE)) return false;
  return samples === 1 ? [1, 8, 16].includes(bits) : samples === 2 && bits === 8 && photometric === GREYS;
}

function withPalette(indices: Uint8Array, width: number, height: number, map: ArrayLike<number>): Picture {
  const count = map.length / 3;
  const colours = Array.from({ length: count }, (_, n) => [0, 1, 2].map((k) => map[k * count + n]! >> 8));
  const values = new Uint8Array(3 * indices.length);
  indices.forEach((index, at) => values.set(colours[index] ?? [0, 0, 0], 3 * at));
  return { values, width, height, channels: 3, palette: { indices, colours } };
}

/** What ImageJ, OME or tifffile say of the pages: axes longer than 1, the slowest first. */
function readAxes(text: string, channels: number): Pages["axes"] {
  let axes: Pages["axes"] = [];
  if (text.startsWith("ImageJ=")) {
    const numbers = new Map([...text.matchAll(/^(\w+)=(\d{1,9})\s*$/gm)].map(([, key, value]) => [key!, Number(value)]));
    axes = ([["T", "frames"], ["Z", "slices"], ["C", "channels"]] as const).map(([axis, key]) => [axis, numbers.get(key) ?? 1]); // prettier-ignore
  } else if (text.includes("<OME")) {
    if ([...text.matchAll(/<(?:\w+:)?Image\s/g)].length > 1) throw new Refusal("holds several images (OME)", "Save one as a TIF of its own");
    const numbers = new Map([...text.matchAll(/\bSize([CTZ])\s*=\s*["'](\d{1,9})["']/g)].map(([, axis, value]) => [axis!, Number(value)]));
    const order = /\bDimensionOrder\s*=\s*["']XY([CTZ]{3})["']/.exec(text)?.[1] ?? "CZT";
    axes = [...order].reverse().map((axis) => [axis, numbers.get(axis) ?? 1]);
  } else if (text.trimStart().startsWith("{")) axes = readShape(text, channels);
  return axes.filter(([, length]) => length > 1);
}

/** The JSON that tifffile writes: {"shape": [12, 2, 96, 96], "axes": "ZCYX"}. */
function readShape(text: string, channels: number): Pages["axes"] {
  try {
    const told = JSON.parse(text) as { shape: number[]; axes?: string };
    const letters = told.axes?.length === told.shape.length ? told.axes : "?".repeat(told.shape.length);
    const pages = told.shape.length - (channels === 1 ? 2 : 3);
    return told.shape.slice(0, Math.max(0, pages)).map((length, n) => [letters[n]!, Number(length)]);
  } catch {
    return [];
  }
}

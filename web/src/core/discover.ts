// Which files are one case, which are masks, and which are neither. The Python side: brainseg.predict.discover.

import { unzipSync } from "fflate";

import { MAX_PAGES } from "./pixels";
import { Refusal } from "./refusal";

// The endings of scans.SUFFIXES and pictures.SUFFIXES; a test holds these against Python's.
export const VOLUMES = ".nii .nii.gz .hdr .hdr.gz .img .img.gz .nrrd .nhdr .mha .mhd .mgh .mgz".split(" ");
export const PICTURES = ".tif .tiff .png .jpg .jpeg".split(" ");
const OTHERS = ".zip .pdf .txt .csv .json .xml .htm .html .md".split(" ");
const HEADERS = [".hdr", ".hdr.gz", ".nhdr", ".mhd"];
const LITTER = /^(\.|dicomdir$|thumbs\.db$|desktop\.ini$|__macosx$)/i;
const MASK = /[_.](mask|seg)$/i; // 3D Slicer writes X.seg.nrrd
const NUMBERED = /^(.*?)([0-9]{1,18})$/s;
const MOST_BYTES = 2 ** 30; // in a zip

/** A file, and where it lay in what was given. */
export interface Item {
  path: string;
  blob: Blob;
}

/** Files that are outlined together. `numbers`: of slices that are pictures. `masks`: what lies beside them, for one slice each. */
export interface Group {
  form: "file" | "pair" | "slices" | "series";
  label: string;
  items: Item[];
  numbers: number[];
  masks: Item[];
}

export interface Found {
  groups: Group[];
  lone: Item[]; // masks without a scan beside them
}

export function nameOf({ path }: Item): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

export function endsIn(endings: readonly string[], name: string): boolean {
  return endings.some((ending) => name.toLowerCase().endsWith(ending));
}

/** Whether a file is left where it lies: hidden, or what systems put beside others. */
export function isLitter(path: string): boolean {
  return path.split("/").some((part) => LITTER.test(part));
}

/** The name without an ending of ours. */
export function stemOf(item: Item): string {
  const name = nameOf(item);
  const ending = endingOf(name);
  return name.slice(0, name.length - ending.length);
}

export function isMask(item: Item): boolean {
  return MASK.test(stemOf(item)) && endingOf(nameOf(item)) !== "";
}

/** Sort files into cases. Zips are opened; masks go with the scan whose name they have. */
export async function discover(given: readonly Item[]): Promise<Found> {
  const items: Item[] = [];
  for (const item of given) {
    if (isLitter(item.path)) continue;
    if (nameOf(item).toLowerCase().endsWith(".zip")) items.push(...(await unpack(item)));
    else items.push(item);
  }
  const groups: Group[] = [];
  const masks: Item[] = [];
  for (const inside of byFolder(items).values()) {
    const stems = new Set(inside.map(stemOf));
    const isAnswer = (item: Item) => isMask(item) && (given.length > 1 || stems.has(stemOf(item).replace(MASK, "")));
    masks.push(...inside.filter(isAnswer));
    groups.push(...group(inside.filter((item) => !isAnswer(item))));
  }
  const used = new Set(groups.flatMap((each) => (each.masks = masks.filter((mask) => each.items.some((item) => belongs(mask, item))))));
  groups.sort((a, b) => a.label.localeCompare(b.label, "en", { numeric: true }));
  return { groups, lone: masks.filter((mask) => !used.has(mask)) };
}

function endingOf(name: string): string {
  const found = [...VOLUMES, ...PICTURES].filter((ending) => name.toLowerCase().endsWith(ending));
  return found.reduce((longest, ending) => (ending.length > longest.length ? ending : longest), "");
}

function folderOf({ path }: Item): string {
  return path.slice(0, path.lastIndexOf("/") + 1);
}

function belongs(mask: Item, item: Item): boolean {
  return folderOf(mask) === folderOf(item) && stemOf(mask).replace(MASK, "") === stemOf(item);
}

function byFolder(items: Item[]): Map<string, Item[]> {
  const folders = new Map<string, Item[]>();
  for (const item of items) folders.set(folderOf(item), [...(folders.get(folderOf(item)) ?? []), item]);
  return folders;
}

/** The cases of one folder: pairs, volumes, numbered pictures, other pictures, and all else as the files of one series. */
function group(inside: Item[]): Group[] {
  const ordered = [...inside].sort((a, b) => nameOf(a).localeCompare(nameOf(b), "en", { numeric: true }));
  const pairs = findPairs(ordered);
  const paired = new Set(pairs.flatMap(({ items }) => items));
  const rest = ordered.filter((item) => !paired.has(item));
  const volumes = rest.filter((item) => endsIn(VOLUMES, nameOf(item)));
  const pictures = rest.filter((item) => endsIn(PICTURES, nameOf(item)));
  const others = rest.filter((item) => !endsIn([...VOLUMES, ...PICTURES, ...OTHERS], nameOf(item)));
  const stacks = findStacks(pictures);
  const stacked = new Set(stacks.flatMap(({ items }) => items));
  const alone = [...volumes, ...pictures.filter((item) => !stacked.has(item))].map((item) => make("file", nameOf(item), [item]));
  const series = others.length ? [make("series", others.length > 1 ? `DICOM series, ${others.length} files` : nameOf(others[0]!), others)] : [];
  return [...pairs, ...stacks, ...alone, ...series];
}

function make(form: Group["form"], label: string, items: Item[], numbers: number[] = []): Group {
  return { form, label, items, numbers, masks: [] };
}

/** A header and the file of its voxels, which has the same name in front of its ending. */
function findPairs(items: Item[]): Group[] {
  const plain = (item: Item) => nameOf(item).replace(/\.(gz)$/i, "").replace(/\.[^.]*$/, "");
  return items.flatMap((header) => {
    if (!endsIn(HEADERS, nameOf(header))) return [];
    const voxels = items.find((item) => item !== header && plain(item) === plain(header) && !endsIn([...HEADERS, ...PICTURES, ...OTHERS], nameOf(item)));
    return voxels ? [make("pair", nameOf(header), [header, voxels])] : [];
  });
}

/** Two or more pictures whose names differ only in the number at their end. */
function findStacks(pictures: Item[]): Group[] {
  const stacks = new Map<string, { number: number; item: Item }[]>();
  for (const item of pictures) {
    const [, prefix, number] = NUMBERED.exec(stemOf(item)) ?? [];
    if (number === undefined) continue;
    const key = `${prefix}*${endingOf(nameOf(item))}`;
    stacks.set(key, [...(stacks.get(key) ?? []), { number: Number(number), item }]);
  }
  return [...stacks].filter(([, slices]) => slices.length > 1).map(([label, slices]) => {
    slices.sort((a, b) => a.number - b.number);
    if (slices.length > MAX_PAGES) throw new Refusal(`${label}: ${slices.length} slices, at most ${MAX_PAGES} are accepted`, "Drop one patient at a time");
    const twice = slices.find(({ number }, n) => slices[n + 1]?.number === number);
    if (twice) throw new Refusal(`${label}: several slices are number ${twice.number}`, "Give each its own number");
    const name = label.slice(0, label.lastIndexOf("*")).replace(/[_\-. ]+$/, "") || label;
    return make("slices", name, slices.map(({ item }) => item), slices.map(({ number }) => number));
  }); // prettier-ignore
}

async function unpack(zip: Item): Promise<Item[]> {
  let bytes = 0;
  const wanted = (path: string, size: number) => {
    bytes += size;
    if (bytes > MOST_BYTES) throw new Refusal(`${nameOf(zip)}: holds more than is accepted`, "Open one patient at a time");
    return !path.endsWith("/") && !isLitter(path);
  };
  try {
    const inside = unzipSync(new Uint8Array(await zip.blob.arrayBuffer()), { filter: ({ name, originalSize }) => wanted(name, originalSize) });
    return Object.entries(inside).map(([path, content]) => ({ path: `${zip.path}/${path}`, blob: new Blob([content as BlobPart]) }));
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal(`${nameOf(zip)}: is a damaged zip, or one that is encrypted`, "Unpack it and drop its folder");
  }
}

// From what was dropped or chosen to what is sent. The server judges the contents; here only what belongs together.

import { Refusal, type Given } from "./api";

// The endings of scans.SUFFIXES and pictures.SUFFIXES, which tests/server/test_app.py holds these against.
const VOLUMES = ".nii .nii.gz .hdr .hdr.gz .img .img.gz .nrrd .nhdr .mha .mhd .mgh .mgz";
const PICTURES = ".tif .tiff .png .jpg .jpeg";
const OTHERS = ".zip .pdf .txt .csv .json .xml .htm .html";
const HEADER = /^(.*)\.(hdr|hdr\.gz|nhdr|mhd)$/i;
const LITTER = /^(\.|dicomdir$|thumbs\.db$|desktop\.ini$|__macosx$)/i;

function endsIn(endings: string, file: File): boolean {
  return endings.split(" ").some((ending) => file.name.toLowerCase().endsWith(ending));
}

/** Whether two files are a header and its voxels, by their names. */
function isPair(files: File[]): boolean {
  const headers = files.filter((file) => HEADER.test(file.name));
  const [voxels] = files.filter((file) => !HEADER.test(file.name));
  if (files.length !== 2 || headers.length !== 1 || !voxels) return false;
  return !endsIn(".nii .nii.gz .nrrd .mha .mgh .mgz", voxels) && !endsIn(PICTURES, voxels) && !endsIn(OTHERS, voxels);
}

/** One file; a header and its voxels; several files are one DICOM series, or sequences to be assigned, which `roles` guesses. */
export function given(files: File[]): Given | { assign: Partial<Record<"pre" | "flair" | "post", File>> } {
  const kept = files.filter((file) => !LITTER.test(file.name));
  const [first] = kept;
  if (!first) throw new Refusal("Nothing to outline in there", "Drop a picture, a volume (NIfTI, NRRD, MetaImage, MGH), or the files of one DICOM series.");
  if (kept.length === 1) return { name: first.name, parts: [{ role: "file", file: first }] };
  if (isPair(kept)) return { name: kept.find((file) => HEADER.test(file.name))!.name, parts: kept.map((file) => ({ role: "file", file })) };
  if (kept.length <= 3 && kept.every((file) => endsIn(VOLUMES, file))) return { assign: roles(kept) };
  const strange = kept.find((file) => endsIn(`${VOLUMES} ${PICTURES} ${OTHERS}`, file));
  if (strange) {
    throw new Refusal(
      `${kept.length} files at once, among them ${strange.name}`,
      "Several files together must be the DICOM files of one series, or a header and its voxels. Drop anything else one by one, or use Assign sequences.",
    );
  }
  kept.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  return { name: `DICOM series, ${kept.length} files`, parts: kept.map((file) => ({ role: "file", file })) };
}

/** In this order: "pre-contrast" says contrast as well, and "t1ce" T1; "preprocessed" says nothing. */
const ROLES: ["pre" | "flair" | "post", RegExp][] = [
  ["flair", /flair/],
  ["pre", /(^|[^a-z])pre([^a-z]|contrast|gad|$)/],
  ["post", /t1(ce|c|gd|post)|post|gad|contrast/],
  ["pre", /t1/],
];

/** Which of up to three volumes is which, by what their names say; the person sees and corrects it. */
export function roles(files: File[]): Partial<Record<"pre" | "flair" | "post", File>> {
  const found: Partial<Record<"pre" | "flair" | "post", File>> = {};
  for (const file of files) {
    const name = file.name.toLowerCase();
    const role = ROLES.find(([, pattern]) => pattern.test(name))?.[0];
    if (role && !found[role]) found[role] = file;
  }
  return found;
}

/** All files of a drop, folders walked through. Must be called within the event: the list is empty afterwards. */
export function dropped(transfer: DataTransfer): Promise<File[]> {
  const entries = [...transfer.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry());
  const plain = [...transfer.files];
  return entries.some((entry) => entry?.isDirectory) ? walk(entries.filter((entry) => entry !== null)) : Promise.resolve(plain);
}

const MOST = 5000; // a dropped home folder is a mistake, not a series

async function walk(entries: FileSystemEntry[]): Promise<File[]> {
  const files: File[] = [];
  const waiting = [...entries];
  for (let entry = waiting.pop(); entry; entry = waiting.pop()) {
    if (LITTER.test(entry.name)) continue;
    if (entry.isFile) files.push(await new Promise<File>((done, fail) => (entry as FileSystemFileEntry).file(done, fail)));
    if (entry.isDirectory) waiting.push(...(await children(entry as FileSystemDirectoryEntry)));
    if (files.length > MOST) throw new Refusal(`More than ${MOST} files in there`, "Drop the folder of one series.");
  }
  return files;
}

async function children(folder: FileSystemDirectoryEntry): Promise<FileSystemEntry[]> {
  const reader = folder.createReader();
  const found: FileSystemEntry[] = [];
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((done, fail) => reader.readEntries(done, fail)); // at most 100 a call
    if (!some.length) return found;
    found.push(...some);
  }
}

// From what was dropped or chosen to what is opened. What files are, the engine finds out; here only where they come from.

import type { Role } from "./core/cases";
import { endsIn, isLitter, isMask, VOLUMES, type Item } from "./core/discover";
import type { Given } from "./core/engine";
import { Refusal } from "./core/refusal";

const ROLES: [Role, RegExp][] = [
  ["flair", /flair/],
  ["pre", /(^|[^a-z])pre([^a-z]|contrast|gad|$)/],
  ["post", /t1(ce|c|gd|post)|post|gad|contrast/],
  ["pre", /t1/],
];

const MOST = 5000; // a dropped home folder is a mistake, not a series

/** What the files are: one case, or volumes that are sequences to be assigned, which `roles` guesses. */
export function given(items: Item[]): Given | { assign: Partial<Record<Role, Item>> } {
  const kept = items.filter(({ path }) => !isLitter(path));
  if (!kept.length) throw new Refusal("Nothing to outline in there", "Drop a picture, a volume, or the files of one DICOM series");
  const scans = kept.filter((item) => !isMask(item));
  if (scans.length > 1 && scans.length <= 3 && scans.every(({ path }) => endsIn(VOLUMES, path) && !/\.(hdr|img|nhdr|mhd)(\.gz)?$/i.test(path))) {
    return { assign: roles(scans) };
  }
  return { name: nameFor(kept, scans), parts: kept.map((item) => ({ role: "file", item })), choice: {} };
}

/** The file's own name, that of the folder, or what it is. */
function nameFor(kept: Item[], scans: Item[]): string {
  const [first] = scans.length ? scans : kept;
  const name = ({ path }: Item) => path.slice(path.lastIndexOf("/") + 1);
  if (scans.length <= 1) return name(first!);
  const folder = first!.path.includes("/") ? first!.path.split("/").at(-2)! : "";
  if (folder && scans.every(({ path }) => path.split("/").at(-2) === folder)) return folder;
  const prefix = name(first!).replace(/[_\-. ]*\d*\.[^.]*$/, "");
  const numbered = prefix && scans.every((item) => name(item).startsWith(prefix)) && /\.(tiff?|png|jpe?g)$/i.test(name(first!));
  const header = scans.length === 2 && scans.find(({ path }) => /\.(hdr|hdr\.gz|nhdr|mhd)$/i.test(path));
  return header ? name(header) : numbered ? prefix : `DICOM series, ${scans.length} files`;
}

/** Which of up to three volumes is which, by what their names say; the person sees and corrects it. */
export function roles(items: Item[]): Partial<Record<Role, Item>> {
  const found: Partial<Record<Role, Item>> = {};
  for (const item of items) {
    const role = ROLES.find(([, pattern]) => pattern.test(item.path.toLowerCase()))?.[0];
    if (role && !found[role]) found[role] = item;
  }
  return found;
}

/** The files of a field, in order of their names. */
export function chosen(files: FileList | null): Item[] {
  return ordered([...(files ?? [])].map((blob) => ({ path: blob.webkitRelativePath || blob.name, blob })));
}

/** All files of a drop, folders walked through. Must be called within the event: the list is empty afterwards. */
export function dropped(transfer: DataTransfer): Promise<Item[]> {
  const entries = [...transfer.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry());
  const plain = [...transfer.files].map((blob) => ({ path: blob.name, blob }));
  if (!entries.some((entry) => entry?.isDirectory)) return Promise.resolve(ordered(plain));
  return walk(entries.filter((entry) => entry !== null));
}

function ordered(items: Item[]): Item[] {
  return items.sort((a, b) => a.path.localeCompare(b.path, "en", { numeric: true }));
}

async function walk(entries: FileSystemEntry[]): Promise<Item[]> {
  const items: Item[] = [];
  const waiting = [...entries];
  for (let entry = waiting.pop(); entry; entry = waiting.pop()) {
    const path = entry.fullPath.replace(/^\//, "");
    if (isLitter(path)) continue;
    if (entry.isFile) items.push({ path, blob: await new Promise<File>((done, fail) => (entry as FileSystemFileEntry).file(done, fail)) });
    if (entry.isDirectory) waiting.push(...(await children(entry as FileSystemDirectoryEntry)));
    if (items.length > MOST) throw new Refusal(`More than ${MOST} files in there`, "Drop the folder of one series");
  }
  return ordered(items);
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

// From files to cases: pictures, volumes, slices of one volume, DICOM series. The Python side: brainseg.inference.cases.

import { endsIn, nameOf, type Group, type Item } from "./discover";
import { isGzip } from "./inflate";
import * as nifti from "./nifti";
import { samePlace } from "./orientation";
import { decode, toStack } from "./pictures";
import { Refusal } from "./refusal";
import { channelNames, channelOf, isGray, type Case, type Stack } from "./voxels";

export type Role = "pre" | "flair" | "post";
const ROLES: Role[] = ["pre", "flair", "post"];
export const ROLE_NAMES = { pre: "pre-contrast", flair: "FLAIR", post: "post-contrast" };
const CONVERT = "Convert it to NIfTI (dcm2niix, or Save in 3D Slicer), or let the server outline it";

export async function bytesOf({ blob }: Item): Promise<Uint8Array> {
  return new Uint8Array(await blob.arrayBuffer());
}

/** Refusals inside name the file. */
export async function naming<T>(name: string, work: () => Promise<T> | T): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof Refusal) throw new Refusal(`${name}: ${error.what}`, error.fix, error.again);
    throw error;
  }
}

export async function readCase(group: Group): Promise<Case> {
  if (group.form === "slices") return readSlices(group);
  if (group.form === "series") return readSeries(group);
  const [first, second] = group.items;
  return naming(nameOf(first!), async () => readFile(group.label, await bytesOf(first!), second && (await bytesOf(second)), nameOf(first!)));
}

async function readFile(label: string, bytes: Uint8Array, voxels: Uint8Array | undefined, name: string): Promise<Case> {
  if (!bytes.length) throw new Refusal("is empty", "Restore or remove it");
  if (endsIn([".nrrd", ".nhdr", ".mha", ".mhd", ".mgh", ".mgz"], name)) throw new Refusal("is of a kind that only the server reads", CONVERT);
  if (isGzip(bytes) || nifti.isNifti(bytes)) {
    const { stack, place, remarks } = await nifti.readImage(bytes, voxels);
    return makeCase(label, "nifti", stack, place, remarks);
  }
  const found = await decode(bytes);
  const stack = toStack(found);
  return makeCase(label, found.pages.length > 1 ? "tif" : "picture", stack, null, []);
}

async function readSlices(group: Group): Promise<Case> {
  const stacks: Stack[] = [];
  for (const item of group.items) {
    const found = await naming(nameOf(item), async () => decode(await bytesOf(item)));
    if (found.pages.length > 1) throw new Refusal(`${nameOf(item)}: has several pages, and is one of several slices by its name`, "Drop it alone");
    stacks.push(toStack(found));
  }
  const stack = joinSlices(stacks, group.label);
  return { ...makeCase(group.label, "slices", stack, null, describeLone(group.numbers)), numbers: group.numbers };
}

export function joinSlices(stacks: Stack[], label: string): Stack {
  const [first] = stacks as [Stack];
  const kind = ({ values, width, height, channels }: Stack) => [values.constructor.name, width, height, channels].join();
  if (stacks.some((stack) => kind(stack) !== kind(first))) throw new Refusal(`${label}: are slices of different kinds`, "Save them in the same size and type");
  const values = new (first.values.constructor as new (length: number) => Stack["values"])(first.values.length * stacks.length);
  stacks.forEach((stack, n) => values.set(stack.values, n * first.values.length));
  return { ...first, values, slices: stacks.length };
}

/** DICOM brings its own library, which is fetched when it is needed. */
async function readSeries(group: Group): Promise<Case> {
  const { readSeries: read } = await import("./dicom");
  const files = await Promise.all(group.items.map(async (item) => ({ name: nameOf(item), bytes: await bytesOf(item) })));
  const { stack, place, remarks, origin, noSeg } = await read(files);
  return { ...makeCase(group.label, "dicom", stack, place, remarks), origin, noSeg };
}

/** Up to three series of one place as the model's channels; FLAIR stands in for a missing one, as in training. */
export function combine(parts: Partial<Record<Role, Case>>, name: string): Case {
  const flair = parts.flair;
  if (!flair) throw new Refusal("There is no FLAIR", "Name the FLAIR at least");
  const given = ROLES.filter((role) => parts[role]);
  if (given.length === 1) return { ...flair, name };
  const plain = new Map(given.map((role) => [role, isGray(parts[role]!.stack) ? channelOf(parts[role]!.stack, 0) : parts[role]!.stack]));
  const base = plain.get("flair")!;
  for (const role of given) checkSameGrid(flair, parts[role]!, base, plain.get(role)!, ROLE_NAMES[role]);
  const values = new (base.values.constructor as new (length: number) => Stack["values"])(3 * base.values.length);
  ROLES.forEach((role, k) => {
    const own = (plain.get(role) ?? base).values;
    for (let at = 0; at < own.length; at++) values[3 * at + k] = own[at]!;
  });
  const remarks = [...new Set(given.flatMap((role) => parts[role]!.remarks))];
  const channels = ROLES.map((role) => ROLE_NAMES[parts[role] ? role : "flair"]);
  return { ...flair, name, stack: { ...base, values, channels: 3 }, remarks, channels };
}

function checkSameGrid(flair: Case, part: Case, base: Stack, own: Stack, name: string): void {
  const fix = "Resample the series onto the FLAIR's grid, or leave it out";
  if (own.channels !== 1) throw new Refusal(`${name}: has three channels`, "Give series of one channel each");
  const kind = ({ values, slices, height, width }: Stack) => `${slices} x ${height} x ${width} ${values.constructor.name.replace("Array", "").toLowerCase()}`;
  if (kind(own) !== kind(base)) throw new Refusal(`${name}: is ${kind(own)}, the FLAIR is ${kind(base)}`, fix);
  if (!part.place !== !flair.place) throw new Refusal(`${name} and the FLAIR are of different kinds, one with a place in space`, fix);
  if (part.place && flair.place && !samePlace(part.place, flair.place)) throw new Refusal(`${name}: lies elsewhere in space than the FLAIR`, fix);
}

function makeCase(name: string, kind: Case["kind"], stack: Stack, place: Case["place"], remarks: string[]): Case {
  const numbers = Array.from({ length: stack.slices }, (_, n) => n + 1);
  return { name, kind, stack, place, remarks, numbers, channels: channelNames(stack), origin: null, noSeg: "" };
}

/** That slices whose numbers have no neighbour are not cleaned as parts of a volume. */
function describeLone(numbers: readonly number[]): string[] {
  const lone = numbers.filter((number) => !numbers.includes(number - 1) && !numbers.includes(number + 1));
  if (!lone.length) return [];
  const shown = lone.slice(0, 3).join(", ") + (lone.length > 3 ? ", ..." : "");
  return [`by their numbers ${lone.length} of ${numbers.length} slices have no neighbours (${shown}): each is taken alone`];
}

// The server outlines: an upload, and its answer in the form that the page's own engine gives.

import * as api from "../api";
import { discover, endsIn, nameOf, PICTURES, stemOf, VOLUMES, type Item } from "../core/discover";
import type { Given, Outlined } from "../core/engine";
import { readImage } from "../core/nifti";
import { Refusal } from "../core/refusal";
import { CHANNELS, type Case, type Place } from "../core/voxels";
import type { Client } from "../worker/client";
import type { Answer, Follow, SliceFacts } from "./types";

export async function outline(given: Given, signal: AbortSignal, client: Client, follow?: Follow): Promise<Outlined> {
  const { sent, masks, slices } = await sort(given);
  const answer = await api.segment(sent, signal, follow);
  const { volumes, ...rest } = answer;
  const [image, mask, probability] = await Promise.all([volumes.image, volumes.mask, volumes.probability].map(unpack));
  const { stack } = image!;
  const place: Place | null = rest.input.spacing_mm && rest.input.orientation === "known" ? placeOf(rest, image!.place) : null;
  const levels = probability!.stack.values as Uint8Array;
  const numbers = rest.slices.map(({ slice }: SliceFacts) => slice);
  const own: Case = { name: given.name, kind: rest.input.kind, stack: { ...stack, values: new Uint8Array(0) }, place, numbers, remarks: [], channels: CHANNELS, origin: null, noSeg: "" };
  await client.call("adopt", { given: own, levels: levels.slice(), slices });
  const ends = { low: [0, 0, 0], high: [255, 255, 255] };
  return {
    answer: rest, image: stack, place, numbers, mask: mask!.stack.values as Uint8Array, probability: levels, apart: null,
    window: ends, ...(await besides(masks, client)),
  }; // prettier-ignore
}

/** What is sent of a case, and the masks that lie beside it, which stay here. `slices`: the names of its pictures. */
async function sort(given: Given): Promise<{ sent: Given; masks: Item[]; slices: string[] }> {
  const whole = given.parts.every(({ role }) => role === "file") ? await discover(given.parts.map(({ item }) => item)).catch(() => null) : null;
  const group = whole?.groups.length === 1 ? whole.groups[0]! : null;
  if (group?.form !== "slices") checkParts(given);
  const slices = group?.form === "slices" ? group.items.map(stemOf) : [];
  if (!group?.masks.length) return { sent: given, masks: [], slices };
  return { sent: { ...given, parts: group.items.map((item) => ({ role: "file", item })) }, masks: group.masks, slices };
}

/** One that does not fit does not keep the scan from being shown. */
async function besides(masks: Item[], client: Client): Promise<Pick<Outlined, "reference" | "referenceRefused">> {
  try {
    return { reference: masks.length ? await client.call("reference", masks) : null, referenceRefused: "" };
  } catch (error) {
    if (error instanceof Refusal) return { reference: null, referenceRefused: `${error.what}. ${error.fix}` };
    throw error;
  }
}

/** The answer's volumes are axial; the file's own grid, where the answer tells it, is where masks are saved. */
function placeOf(answer: Answer, axial: Place): Place {
  const geometry = answer.input.geometry ?? axial.geometry;
  return { spacing: answer.input.spacing_mm!, geometry };
}

async function unpack(base64: string): ReturnType<typeof readImage> {
  return readImage(Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)), undefined, true);
}

/** Several files together must be one series, or a header and its voxels: the server takes nothing else. */
function checkParts({ parts }: Given): void {
  const names = parts.filter(({ role }) => role === "file").map(({ item }) => nameOf(item));
  const strange = names.find((name) => endsIn([...VOLUMES, ...PICTURES, ".zip", ".pdf", ".txt"], name));
  const isPair = names.length === 2 && names.some((name) => endsIn([".hdr", ".hdr.gz", ".nhdr", ".mhd"], name));
  if (names.length < 2 || isPair || !strange) return;
  throw new Refusal(
    `${names.length} files at once, among them ${strange}`,
    "The server takes the DICOM files of one series, or a header and its voxels. Drop anything else one by one, or let this computer outline it.",
  );
}

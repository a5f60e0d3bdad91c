// The server's HTTP interface, as far as the page uses it. Addresses are relative, so the page may live below a path.

import { nameOf } from "./core/discover";
import type { Given } from "./core/engine";
import type { Model } from "./core/modelFile";
import { Refusal } from "./core/refusal";
import type { Kind } from "./core/voxels";
import type { Answer as Told, Follow, Step } from "./engines/types";
import { sentence } from "./page";

type Answer = Told & { volumes: { image: string; mask: string; probability: string } };

export interface Example {
  id: string;
  title: string;
  kind: Kind;
  note?: string | null; // what is known of it
  attribution?: string | null;
  licence?: string | null; // an address
}

const BROKEN = new Refusal("The answer broke off", "Try again.", true);
const ASKED = 600; // ms between two questions; the server wants two a second at most

/** A static site has files in place of the server's answers. */
const isSite = import.meta.env.MODE === "site";

/** `follow` hears how far the server is. */
export async function segment(given: Given, signal: AbortSignal, follow?: Follow): Promise<Answer> {
  const id = newId();
  const stop = follow ? watch(id, follow) : () => undefined;
  try {
    const response = await post(given, "application/json", { volumes: true }, signal, id);
    return (await response.json().catch((error) => Promise.reject(signal.aborted ? error : BROKEN))) as Answer;
  } finally {
    stop();
  }
}

/** A name for a request. crypto.randomUUID is not there on a page without TLS. */
function newId(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

interface Progress {
  stage: Step["stage"];
  bytes_received: number;
  bytes_total: number | null;
  place: number | null;
  slices_done: number;
  slices_total: number | null;
}

/** Ask how far a request is until told to stop. A server or proxy that does not answer that costs nothing else. */
function watch(id: string, follow: Follow): () => void {
  let ended = false;
  const ask = async () => {
    const told: Progress | null = await fetch(`v1/progress/${id}`).then((response) => (response.ok ? response.json() : null)).catch(() => null); // prettier-ignore
    if (ended) return;
    if (told) {
      const { stage, place, bytes_received, bytes_total, slices_done, slices_total } = told;
      const [done, all] = stage === "uploading" ? [bytes_received, bytes_total] : [slices_done, slices_total];
      follow({ stage, place, done, all: all ?? 0 });
    }
    timer = setTimeout(ask, ASKED);
  };
  let timer = setTimeout(ask, ASKED);
  return () => {
    ended = true;
    clearTimeout(timer);
  };
}

/** The mask as DICOM SEG, of a series that the server reads. */
export async function seg(given: Given, signal: AbortSignal): Promise<Blob> {
  return (await post(given, "application/dicom", {}, signal)).blob();
}

export async function model(): Promise<Model> {
  return (await get("v1/model")).json();
}

/** The prose of the model card, of a static site. */
export async function cardWords(): Promise<string> {
  return (await get("model/card.md")).text();
}

export async function examples(): Promise<Example[]> {
  return (await get(isSite ? "examples/list.json" : "v1/examples")).json();
}

const ENDINGS: Partial<Record<Kind, string>> = { picture: ".png", slices: ".zip", tif: ".tif", nifti: ".nii.gz", dicom: ".zip" };

export async function example(chosen: Example, signal: AbortSignal): Promise<File> {
  const name = chosen.id + (ENDINGS[chosen.kind] ?? "");
  const body = await (await get(isSite ? `examples/${name}` : `v1/examples/${encodeURIComponent(chosen.id)}`, signal)).blob();
  return new File([body], name);
}

async function post(given: Given, accept: string, options: Record<string, boolean>, signal: AbortSignal, id = newId()): Promise<Response> {
  const body = new FormData();
  for (const { role, item } of given.parts) body.append(role, item.blob, nameOf(item));
  const asked = Object.entries({ ...options, ...given.choice }).map(([name, value]) => [name, String(value)]);
  const query = new URLSearchParams(asked).toString();
  return checked(() => fetch(`v1/segment${query && `?${query}`}`, { method: "POST", body, signal, headers: { Accept: accept, "X-Request-ID": id } }));
}

function get(address: string, signal?: AbortSignal): Promise<Response> {
  return checked(() => fetch(address, { signal: signal ?? null, headers: { Accept: "application/json, */*" } }));
}

async function checked(request: () => Promise<Response>): Promise<Response> {
  let response: Response;
  try {
    response = await request();
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Refusal(
      "The server did not answer",
      "Check that brainseg serve still runs and that the file was not moved or changed, then try again.",
      true,
    );
  }
  if (response.ok) return response;
  throw refusal(response, await response.json().catch(() => null));
}

/** The server's own words where it has some; proxies in front of it answer without. */
function refusal(response: Response, body: { error?: { what?: string; fix?: string } } | null): Refusal {
  const [what, fix] = WORDS[response.status] ?? [`The server answered ${response.status}`, "Look at what brainseg serve printed."];
  const wait = Number(response.headers.get("Retry-After"));
  const words = body?.error?.fix ?? fix;
  const later = wait > 0 && !/again in \d/i.test(words) ? `Try again in ${wait} s.` : "";
  const again = response.status === 429 || response.status >= 500;
  return new Refusal(body?.error?.what ?? what, [sentence(words), later].join(" ").trim(), again);
}

const WORDS: Record<number, [string, string]> = {
  401: ["This page has no access", "Open the link with the token that brainseg serve printed."],
  403: ["The server refused this page", "Open the address that brainseg serve printed, not a copy of the page."],
  413: ["The file is too large", "Send one series, or fewer slices."],
  415: ["Not a file that can be outlined", "Send PNG, TIF, JPEG, NIfTI, NRRD, MetaImage, MGH or DICOM; a header together with its voxels."],
  429: ["Too many requests", "Wait a little."],
  503: ["The server is busy", "Wait a little."],
};

// The server's HTTP interface, as far as the page uses it. Addresses are relative, so the page may live below a path.

import { sentence } from "./page";

export type Kind = "picture" | "tif" | "nifti" | "nrrd" | "metaimage" | "mgh" | "dicom";

export interface Answer {
  disclaimer: string;
  model: { weights_sha256: string; variant: string; marks: string[] };
  input: {
    kind: Kind;
    slices: number;
    height: number;
    width: number;
    spacing_mm: [number, number, number] | null;
    orientation: "known" | "unknown";
    channels: string[];
  };
  /** Whether the mask can be had as DICOM SEG. */
  seg?: boolean;
  warnings: string[];
  summary: {
    tumour_pixels: number;
    slices_with_tumour: number;
    largest_slice: number | null;
    area_mm2: number | null;
    area_pixels: number;
    volume_ml: number | null;
    mean_probability: number | null;
    seconds: number;
  };
  slices: SliceFacts[];
  rule: Rule & { of_the_model: boolean };
  lesions: Lesion[];
  volumes: { image: string; mask: string; probability: string };
}

export interface SliceFacts {
  slice: number;
  pixels: number;
  area_mm2: number | null;
  mean_probability: number | null;
}

/** Tumour is what has at least this probability, in components of at least so many voxels. */
export interface Rule {
  threshold: number;
  min_component: number;
}

/** In the order of the columns of lesions.csv; null is what is not known. */
export interface Lesion {
  lesion: number;
  voxels: number;
  volume_ml: number | null;
  area_mm2: number | null;
  extent_x_mm: number | null;
  extent_y_mm: number | null;
  extent_z_mm: number | null;
  max_diameter_mm: number | null;
  centroid_i: number;
  centroid_j: number;
  centroid_k: number;
  centroid_x_mm: number | null;
  centroid_y_mm: number | null;
  centroid_z_mm: number | null;
  first_slice: number;
  last_slice: number;
  largest_slice: number;
  mean_probability: number;
  max_probability: number;
}

export interface Model {
  weights_sha256?: string;
  variant?: string;
  source?: string;
  marks?: string[];
  rule?: Rule;
  numbers?: Record<string, unknown>;
  protocol?: Record<string, unknown>;
  card_markdown?: string;
}

export interface Example {
  id: string;
  title: string;
  kind: Kind;
}

/** What is sent: one file, the files of one DICOM series, or one file for each sequence; and a rule in place of the model's. */
export interface Given {
  name: string;
  rule?: Partial<Rule>;
  parts: { role: "file" | "pre" | "flair" | "post"; file: File }[];
}

/** A refusal in words for people: what is wrong and what to do. `again` when the same request may succeed later. */
export class Refusal extends Error {
  constructor(
    readonly what: string,
    readonly fix: string,
    readonly again = false,
  ) {
    super(what);
  }
}

export async function segment(given: Given, signal: AbortSignal): Promise<Answer> {
  const response = await post(given, "application/json", { volumes: true }, signal);
  try {
    return (await response.json()) as Answer;
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Refusal("The answer broke off", "Try again.", true);
  }
}

const FILES = {
  mask: { accept: "application/x-nifti", query: {} },
  probability: { accept: "application/x-nifti", query: { probability: true } },
  seg: { accept: "application/dicom", query: {} },
};

/** In the input's own geometry: the answer's volumes are axial, which the input need not be. */
export async function file(given: Given, kind: keyof typeof FILES, signal: AbortSignal): Promise<Blob> {
  return (await post(given, FILES[kind].accept, FILES[kind].query, signal)).blob();
}

export async function model(): Promise<Model> {
  return (await get("v1/model")).json();
}

export async function examples(): Promise<Example[]> {
  return (await get("v1/examples")).json();
}

const ENDINGS: Partial<Record<Kind, string>> = { picture: ".png", tif: ".tif", nifti: ".nii.gz", dicom: ".zip" };

export async function example(chosen: Example, signal: AbortSignal): Promise<File> {
  const body = await (await get(`v1/examples/${encodeURIComponent(chosen.id)}`, signal)).blob();
  return new File([body], chosen.id + (ENDINGS[chosen.kind] ?? ""));
}

async function post(given: Given, accept: string, options: Record<string, boolean>, signal: AbortSignal): Promise<Response> {
  const body = new FormData();
  for (const { role, file } of given.parts) body.append(role, file, file.name);
  const asked = Object.entries({ ...options, ...given.rule }).map(([name, value]) => [name, String(value)]);
  const query = new URLSearchParams(asked).toString();
  return checked(() => fetch(`v1/segment${query && `?${query}`}`, { method: "POST", body, signal, headers: { Accept: accept } }));
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

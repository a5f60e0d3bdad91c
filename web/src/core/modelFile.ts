// The ONNX file: its content against its own digest, and its metadata, which say how a slice is prepared and what an
// answer means. The Python side: brainseg.inference.sealed and onnx_session.

import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";

import { Refusal } from "./refusal";

const FORMATS = [1, 2]; // 2: its calibration has a skew
const METADATA = 14; // field of a ModelProto; each entry has a key (1) and a value (2)
const SEAL = 84; // bytes of the entry that holds the digest of all before it
const GROUP_TYPES = [3, 4];

/** Of evaluation.json, what is told of a model. */
export interface Scores {
  volume?: { dice?: { mean?: number | null } };
  alone?: { stripped_dice?: number | null };
}

export interface Facts {
  format: number;
  variant: string;
  marks: string[];
  model: {
    weights_sha256: string;
    contract: { channels: string[] };
    preprocess: { channels: string; window: [number, number] };
    protocol: Record<string, unknown> & { source?: string; marks?: string[] };
  };
  rule: { threshold: number; min_component: number; min_share?: number; mirror: boolean; temperature?: number; bias?: number; skew?: number };
  evaluation: { test?: Scores } & Record<string, unknown>;
}

export interface ModelFile {
  facts: Facts;
  sha256: string; // of the whole file
}

/** Check a model and read its metadata. Refused are damaged files, and those of another kind or version. */
export function readModel(bytes: Uint8Array): ModelFile {
  const fix = "Load the page again; if that does not help, its model was put there wrongly";
  const digest = bytesToHex(sha256(bytes.subarray(0, -SEAL)));
  const [key, value] = entries(bytes.subarray(-SEAL))[0] ?? [];
  if (key !== "content_sha256" || value !== digest) {
    throw new Refusal("The model is damaged: its content does not fit its own digest", fix);
  }
  const facts = entries(bytes).find(([name]) => name === "brainseg")?.[1];
  const read = facts === undefined ? null : (JSON.parse(facts) as Facts);
  if (!read || !FORMATS.includes(read.format)) throw new Refusal("The model is of another version than the page", fix);
  return { facts: read, sha256: bytesToHex(sha256(bytes)) };
}

/** What a page tells of a model: as GET /v1/model. */
export interface Model {
  weights_sha256?: string;
  variant?: string;
  source?: string;
  marks?: string[];
  rule?: Partial<Facts["rule"]>;
  numbers?: Record<string, unknown>;
  protocol?: Record<string, unknown>;
  card_markdown?: string | null;
}

export function describeModel(facts: Facts): Model {
  const { model, variant, rule, evaluation } = facts;
  const dice = evaluation.test?.volume?.dice;
  return {
    weights_sha256: model.weights_sha256, variant, rule, marks: marks(facts), protocol: model.protocol,
    numbers: dice === undefined ? {} : { volume_dice: dice }, ...(model.protocol.source && { source: model.protocol.source }),
  }; // prettier-ignore
}

/** What every number of this model must be read with. */
export function marks(facts: Facts): string[] {
  return facts.marks.length ? facts.marks : (facts.model.protocol.marks ?? []);
}

/** The metadata of a ModelProto. Nothing else in it is looked at. */
function entries(bytes: Uint8Array): [string, string][] {
  return fields(bytes)
    .filter(({ number }) => number === METADATA)
    .map(({ content }) => {
      const own = fields(content);
      const text = (wanted: number) => new TextDecoder().decode(own.find(({ number }) => number === wanted)?.content);
      return [text(1), text(2)];
    });
}

/** The fields of a protobuf message that hold bytes; numbers are passed over. */
function fields(bytes: Uint8Array): { number: number; content: Uint8Array }[] {
  const found: { number: number; content: Uint8Array }[] = [];
  let at = 0;
  const varint = () => {
    for (let value = 0, factor = 1; ; factor *= 128) {
      const byte = bytes[at++];
      if (byte === undefined) throw new Refusal("The model is damaged", "Load the page again");
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const head = varint();
    const kind = head & 7;
    if (kind === 0) varint();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) {
      const length = varint();
      found.push({ number: Math.floor(head / 8), content: bytes.subarray(at, at + length) });
      at += length;
    } else throw new Refusal(GROUP_TYPES.includes(kind) ? "The model is of an old kind" : "The model is damaged", "Load the page again");
  }
  return found;
}

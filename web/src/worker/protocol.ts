// What is said between the page and its worker.

import type { Answer, Numbers } from "../core/answer";
import type { Shown } from "../core/desk";
import type { Outline } from "../core/dicomSeg";
import type { Item } from "../core/discover";
import type { Given, Outlined } from "../core/engine";
import type { Model } from "../core/modelFile";
import type { Scores } from "../core/reference";
import type { Choice } from "../core/rule";

export interface Loaded {
  model: Model;
  sha256: string;
  provider: "wasm" | "webgpu";
  threads: number;
}

/** What can be asked of the worker, by name: what it takes and what it answers. */
export interface Calls {
  load: { takes: { model: string }; gives: Loaded };
  outline: { takes: Given; gives: Outlined };
  apply: { takes: Choice; gives: { mask: Uint8Array; answer: Answer } };
  adopt: { takes: Shown; gives: null }; // a case that the server outlined
  count: { takes: Uint8Array; gives: Numbers };
  reference: { takes: Item[]; gives: Uint8Array };
  seg: { takes: { mask: Uint8Array; outline: Outline }; gives: Uint8Array };
  score: { takes: { reference: Uint8Array; mask: Uint8Array }; gives: Scores };
}

export type Name = keyof Calls;

export type Request = { [N in Name]: { id: number; name: N; given: Calls[N]["takes"] } }[Name] | { cancel: number };

export type Reply =
  | { id: number; done: number; all: number }
  | { id: number; result: unknown }
  | { id: number; cancelled: true }
  | { id: number; refusal: { what: string; fix: string; again: boolean } }
  | { id: number; error: string };

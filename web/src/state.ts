// What is on the page, and who is told when it changes.

import type { Numbers } from "./core/answer";
import type { MaskEditor } from "./core/editing";
import type { Given } from "./core/engine";
import type { Scores } from "./core/reference";
import type { Choice } from "./core/rule";
import type { Engine, Result } from "./engines/engine";
import { plainName } from "./page";
import type { Viewer } from "./viewer/viewer";

/** A case with its answer. The editor's mask is the one that is seen, counted and saved. */
export interface Shown {
  given: Given;
  result: Result;
  editor: MaskEditor<Choice>;
  numbers: Numbers;
  reference: Uint8Array | null;
  scores: Scores | null;
}

export const state: { engine: Engine | null; viewer: Viewer | null; shown: Shown | null; unsaved: boolean } = {
  engine: null,
  viewer: null,
  shown: null,
  unsaved: false,
};

/** opened: another case, or none. mask: another mask or rule. reference: a mask to compare with. place: the crosshair. view: plane or tool. */
type Change = "opened" | "mask" | "reference" | "place" | "view";

const listeners = new Map<Change, (() => void)[]>();

export function on(change: Change, act: () => void): void {
  listeners.set(change, [...(listeners.get(change) ?? []), act]);
}

export function emit(change: Change): void {
  for (const act of listeners.get(change) ?? []) act();
}

/** The files' own name, as it begins the names of what is saved. */
export function stem(): string {
  return plainName(state.shown?.given.name ?? "");
}

/** How many voxels a person changed. */
export function edited(): number {
  return state.shown?.editor.edited ?? 0;
}

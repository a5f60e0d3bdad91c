// A mask of one's own beside the outline: scores, and where the two differ.

import { isMask, type Item } from "./core/discover";
import { Refusal } from "./core/refusal";
import { announce, choose, click, element, input, list, measured, number, sentence, show } from "./page";
import { emit, on, state } from "./state";

const AFTER = 200; // milliseconds after the last change of the mask

let timer = 0;

export function start(): void {
  click("choose-reference", () => input("reference-files").click());
  click("forget-reference", () => set(null));
  input("reference-files").addEventListener("change", () => {
    const items = [...(input("reference-files").files ?? [])].map((blob) => ({ path: blob.name, blob }));
    input("reference-files").value = "";
    if (items.length) void compare(items);
  });
  on("opened", opened);
  on("mask", () => {
    state.viewer?.changed();
    clearTimeout(timer);
    timer = window.setTimeout(() => void rescore(), AFTER);
  });
}

/** Whether what was dropped on a result is meant to be compared with it. */
export function isForUs(items: Item[], target: Element): boolean {
  return Boolean(state.shown) && (target.closest("#judge") !== null || items.every(isMask));
}

export async function compare(items: Item[]): Promise<void> {
  const { shown, engine } = state;
  if (!shown || !engine) return;
  tell("");
  try {
    const reference = await engine.reference(items);
    if (state.shown === shown) set(reference);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    if (state.shown === shown) tell(`${sentence(error.what)} ${sentence(error.fix)}`);
  }
}

function opened(): void {
  const { shown } = state;
  set(shown?.result.reference ?? null);
  tell(shown?.result.referenceRefused ?? "");
}

function set(reference: Uint8Array | null): void {
  const { shown, viewer } = state;
  show("forget-reference", reference !== null);
  show("judge-hint", reference === null);
  show("judge-legend", reference !== null);
  show("scores", reference !== null);
  if (!shown) return;
  shown.reference = reference;
  shown.scores = null;
  if (document.body.dataset.viewer !== "none") viewer?.compare(reference);
  emit("reference");
  if (reference) choose("fill", "compare");
  void rescore();
}

function tell(text: string): void {
  element("judge-refusal").textContent = text;
}

async function rescore(): Promise<void> {
  const { shown, engine } = state;
  if (!shown?.reference || !engine) return;
  const scores = await engine.score(shown.reference, shown.editor.mask);
  if (state.shown !== shown || !shown.reference) return;
  shown.scores = scores;
  list("scores", rows());
  announce(`Dice ${score(scores.dice)}`);
}

/** Names and values of the scores. */
export function rows(): [string, string, string?][] {
  const scores = state.shown?.scores;
  if (!scores) return [];
  const size = (ml: number | null, voxels: number) => (ml === null ? `${number(voxels)} px` : `${measured(ml)} ml`);
  const empty = scores.dice === null ? "both masks are empty" : "";
  return [
    ["Dice", score(scores.dice), empty],
    ["IoU", score(scores.iou)],
    ["HD95", scores.hd95 === null ? "–" : `${measured(scores.hd95)} ${scores.unit}`, "95 % of the two borders are at most so far apart"],
    [state.shown?.given.credit ? "Readers' outline" : "Your mask", size(scores.reference_ml, scores.reference_voxels)],
    ["Outline", size(scores.outline_ml, scores.outline_voxels)],
  ];
}

function score(value: number | null): string {
  return value === null ? "–" : number(value, 3);
}

// Opening a case: the one request under way, its progress, its end; and what is shown meanwhile and afterwards.

import { MaskEditor } from "./core/editing";
import type { Given } from "./core/engine";
import { CancelledError } from "./core/outliner";
import { Refusal } from "./core/refusal";
import type { Result } from "./engines/engine";
import { announce, element, focus, sentence, show, words } from "./page";
import { emit, state } from "./state";
import { startClock } from "./waiting";

const TITLE = document.title;

/** Ends the request under way; also the token that tells a stale answer from the wanted one. */
let running: AbortController | null = null;

/** What the page shows when nothing is opened: the way in, or a list of cases. */
let home: "empty" | "batch" = "empty";

export function setHome(wanted: "empty" | "batch"): void {
  home = wanted;
}

export function isWaiting(): boolean {
  return running !== null;
}

/** Ask for an answer and show it, unless something else was opened meanwhile. Until then, and if it fails, the last one stays. */
export async function open(find: (signal: AbortSignal) => Promise<Given> | Given, name: string): Promise<void> {
  running?.abort();
  const mine = (running = new AbortController());
  const wanted = () => running === mine;
  quiet();
  enter("waiting");
  const clock = startClock(name);
  focus("cancel");
  try {
    const given = await find(mine.signal);
    const result = await state.engine!.outline(given, mine.signal, (step) => wanted() && clock.progress(step));
    if (!wanted()) return;
    enter("result");
    if (!(await draw(result, wanted))) return;
    running = null;
    present(given, result);
  } catch (error) {
    if (!wanted()) return;
    running = null;
    back();
    if (!(error instanceof CancelledError) && !mine.signal.aborted) refuse(error, () => void open(find, name), name);
  } finally {
    clock.stop();
  }
}

/** Stop waiting: the last result, if there is one, is there again. */
export function cancel(): void {
  if (!running) return;
  running.abort();
  running = null;
  quiet();
  back();
  announce("Cancelled");
}

export function close(): void {
  goHome();
  announce("");
  focus(home === "batch" ? "batch-title" : "choose"); // the button that had the focus is hidden now
}

/** Close what is opened. */
export function goHome(): void {
  running?.abort();
  running = null;
  state.shown = null;
  state.unsaved = false;
  state.viewer?.clear();
  quiet();
  enter(home);
  document.title = TITLE;
  emit("opened");
  scrollTo(0, 0);
}

/** The server calls what was sent by the part's name and never by the file's, which may say who somebody is. */
export function refuse(error: unknown, again?: () => void, name = ""): void {
  const told = error instanceof Refusal ? error : new Refusal("The page could not show this", `${error}`);
  if (!(error instanceof Refusal)) console.error(error);
  const what = name ? told.what.replace(/^file(?=[:,] )/, () => name) : told.what;
  const box = element(state.shown || home === "batch" ? "notice" : "refusal");
  box.replaceChildren(words("strong", sentence(what)), words("p", sentence(told.fix)));
  if (told.again && again) box.append(button("Try again", again));
  if (box.id === "notice") box.append(button("Close", () => (box.replaceChildren(), focus(state.shown ? "stage" : "batch-title"))));
  const first = box.querySelector<HTMLElement>("button");
  if (first) first.focus({ preventScroll: true });
  else focus("choose");
}

function button(text: string, act: () => void): HTMLElement {
  const made = words("button", text) as HTMLButtonElement;
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

function back(): void {
  enter(state.shown ? "result" : home);
  document.title = state.shown ? titled(state.shown.given.name) : TITLE;
  if (state.shown) state.viewer?.redraw();
  else emit("opened");
  focus(state.shown ? "stage" : home === "batch" ? "batch-title" : "choose");
}

function quiet(): void {
  element("refusal").replaceChildren();
  element("notice").replaceChildren();
  element("download-note").textContent = "";
}

function enter(name: "empty" | "batch" | "waiting" | "result"): void {
  document.body.dataset.state = name;
  show("open", name === "empty");
  show("batch", name === "batch");
  show("waiting", name === "waiting");
  for (const id of ["stage", "results", "rule", "judge", "display", "downloads", "tools", "warnings", "strip"]) show(id, name === "result");
  if (name === "result" && state.shown) emit("view");
}

/** Where the image cannot be shown, its numbers still can. False if another case is wanted by now. */
async function draw(result: Result, wanted: () => boolean): Promise<boolean> {
  document.body.dataset.viewer = state.viewer ? "webgl" : "none";
  const shown = result.image.channels === 3 ? 1 : 0;
  try {
    const window: [number, number] = [result.window.low[shown]!, result.window.high[shown]!];
    await state.viewer?.show(result, window, wanted);
  } catch (error) {
    if (wanted()) document.body.dataset.viewer = "none";
    result.answer.warnings.push(`the image cannot be shown here: ${error instanceof Error ? error.message : error}`);
  }
  return wanted();
}

function present(given: Given, result: Result): void {
  const { summary, slices, lesions } = result.answer;
  const editor = new MaskEditor(result.mask, result.image, given.choice);
  state.shown = { given, result, editor, numbers: { summary, slices, lesions }, reference: null, scores: null };
  state.unsaved = true;
  document.title = titled(given.name);
  emit("opened");
  const seen = document.body.dataset.viewer !== "none";
  element(seen ? "stage" : "verdict").focus({ preventScroll: seen });
}

function titled(name: string): string {
  return `${name.length > 40 ? `${name.slice(0, 39)}…` : name} – brainseg`;
}

/** A question before what was not saved is lost. */
export function guardLeaving(): void {
  addEventListener("beforeunload", (event) => {
    if (state.unsaved || isWaiting()) event.preventDefault();
  });
}

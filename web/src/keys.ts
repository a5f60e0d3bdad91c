// Keys, wherever the focus is but in fields for text and numbers; and the pointer on the picture.

import * as display from "./display";
import { saveMask } from "./downloads";
import { listen } from "./gestures";
import { choose, click, element, input } from "./page";
import { cancel, isWaiting } from "./session";
import * as slices from "./slices";
import { state } from "./state";
import * as tools from "./tools";

const VIEWS = ["axial", "coronal", "sagittal", "planes", "solid"];

export function start(): void {
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && escape()) return event.preventDefault();
    if (!state.shown || document.body.dataset.state !== "result" || document.querySelector("dialog[open]")) return;
    if (isField(event.target as Element, event.key)) return;
    if (key(event)) event.preventDefault();
  });
  pointer();
  for (const [id, factor] of [["zoom-in", 1.25], ["zoom-out", 0.8]] as const) click(id, () => state.viewer?.zoom(factor));
  click("zoom-reset", () => state.viewer?.fit());
  click("largest", slices.largest);
  click("next", () => slices.tumour(1));
  click("previous", () => slices.tumour(-1));
}

/** While waiting it cancels, with a tool it goes back to looking. */
function escape(): boolean {
  if (document.querySelector("dialog[open]")) return false; // closes by itself
  if (isWaiting()) {
    cancel();
    return true;
  }
  if (!state.shown || tools.mode() === "look") return false;
  choose("mode", "look");
  return true;
}

/** Whether a key means something to what has the focus: letters to text, arrows to sliders and to groups of buttons. */
function isField(target: Element, name: string): boolean {
  if (target.matches("input[type=number], input[type=text], textarea, select")) return true;
  const moves = /^(Arrow|Page|Home|End)/.test(name);
  if (moves) return target.matches("input, summary, [role=slider], #lesions .scroll, #card *");
  return name === " " || name === "Enter";
}

function key(event: KeyboardEvent): boolean {
  const name = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey) return command(name, event.shiftKey);
  if (event.altKey) return false;
  const acts: Record<string, () => void> = {
    n: () => slices.tumour(1), p: () => slices.tumour(-1), l: slices.largest, o: () => input("outline").click(), m: display.cycle, r: display.reset,
    v: () => choose("mode", "look"), d: () => choose("mode", "measure"), b: () => choose("mode", "brush"), e: () => choose("mode", "eraser"),
    f: () => choose("mode", "fill"), "[": () => tools.resizeBrush(-1), "]": () => tools.resizeBrush(1), s: () => void saveMask(),
    "+": () => state.viewer?.zoom(1.25), "=": () => state.viewer?.zoom(1.25), "-": () => state.viewer?.zoom(0.8), "0": () => state.viewer?.fit(),
    "?": () => element<HTMLDialogElement>("keys").showModal(),
  }; // prettier-ignore
  const view = VIEWS[Number(name) - 1];
  if (view && state.shown!.result.image.slices > 1) choose("view", view);
  else if (acts[name]) acts[name]();
  else return slices.key(event.key);
  return true;
}

function command(name: string, shifted: boolean): boolean {
  if (name === "z") tools.step(shifted ? "redo" : "undo");
  else if (name === "y") tools.step("redo");
  else return false;
  return true;
}

function pointer(): void {
  const view = () => state.viewer?.view;
  const cross = (x: number, y: number) => {
    const spot = state.viewer?.at(x, y);
    if (!spot) return;
    slices.point(spot.voxel);
    element("reading").textContent = slices.reading(spot.voxel);
  };
  listen(element("stage"), {
    scroll: (by) => slices.move(by),
    press: tools.press,
    drag(x, y, byX, byY) {
      if (tools.drag(x, y)) return;
      if (view() === "planes") cross(x, y);
      else if (view() === "solid") state.viewer?.rotate(byX, byY);
      else display.drag(byX, -byY);
    },
    tap: cross,
    release: tools.release,
    hover: tools.hover,
    move: (x, y) => state.viewer?.move(x, y),
    zoom: (factor, x, y) => state.viewer?.zoom(factor, x, y),
    draws: () => tools.mode() !== "look",
  });
}

// Starts the parts of the page. What is usable at once does not wait for the viewer, the viewer not for the model.

import * as batch from "./batch";
import * as display from "./display";
import * as downloads from "./downloads";
import * as judge from "./judge";
import * as keys from "./keys";
import { Refusal } from "./core/refusal";
import * as opening from "./opening";
import { click, element, show } from "./page";
import * as results from "./results";
import { cancel, guardLeaving, refuse } from "./session";
import * as slices from "./slices";
import { state } from "./state";
import * as theme from "./theme";
import * as threshold from "./threshold";
import * as tools from "./tools";
import * as where from "./where";

function dialogs(): void {
  for (const [button, dialog] of [["show-model", "card"], ["show-card", "card"], ["show-keys", "keys"]] as const) {
    click(button, () => element<HTMLDialogElement>(dialog).showModal());
  }
  document.querySelectorAll(".dismiss").forEach((button) => button.addEventListener("click", () => button.closest("dialog")!.close()));
}

async function attach(): Promise<void> {
  try {
    const { Viewer } = await import("./viewer/viewer");
    state.viewer = await Viewer.attach(element<HTMLCanvasElement>("image"), element<HTMLCanvasElement>("lines"));
  } catch (error) {
    console.error(error);
    document.body.dataset.viewer = "none";
    refuse(new Refusal("This browser cannot draw images (no WebGL 2)", "Numbers and the mask's download still work. Use another browser, or switch its graphics acceleration on."));
  }
}

/** So that the page works without the network from the second visit on. Only a static site brings what this needs. */
async function keepOffline(): Promise<void> {
  if (import.meta.env.MODE !== "site" || !("serviceWorker" in navigator)) return;
  await state.engine!.loaded.catch(() => undefined); // the visitor's own case first
  navigator.serviceWorker.register("sw.js").catch((error) => console.warn("offline copy:", error));
}

/** For tests and the curious: what lies at a point or a voxel, in the console. */
function lookInside(): void {
  const inside = {
    cursor: slices.at,
    value: (at: [number, number, number]) => state.viewer?.valueAt(at),
    voxel: (x: number, y: number) => state.viewer?.at(x, y)?.voxel,
    model: () => state.shown?.result.answer.model,
  };
  Object.assign(window, { brainseg: inside });
}

/** Take a token that is in the address although a cookie was there already out of the address and the history. */
function hideToken(): void {
  if (location.hash.startsWith("#token=")) history.replaceState(null, "", location.pathname + location.search);
}

async function start(): Promise<void> {
  hideToken();
  theme.start();
  dialogs();
  lookInside();
  // In this order each hears of a change: the picture and its numbers first, then what depends on them.
  for (const part of [results, tools, slices, display, threshold, judge, downloads, opening, keys]) part.start();
  click("cancel", cancel);
  guardLeaving();
  where.start();
  opening.listExamples().catch(() => show("examples", false));
  await attach();
  await batch.start();
  document.body.dataset.ready = "true";
  void keepOffline();
}

void start();

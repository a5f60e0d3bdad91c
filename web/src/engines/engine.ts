// Who outlines: this computer, or the server that brought the page. The rest of the page does not ask which.

import type { Numbers } from "../core/answer";
import type { Outline } from "../core/dicomSeg";
import type { Item } from "../core/discover";
import type { Given, Outlined } from "../core/engine";
import type { Model } from "../core/modelFile";
import type { Scores } from "../core/reference";
import { Refusal } from "../core/refusal";
import type { Choice } from "../core/rule";
import { Client, type Progress } from "../worker/client";
import type { Loaded } from "../worker/protocol";
import * as remote from "./remote";
import type { Follow } from "./types";

export type Where = "here" | "server";

export const MODEL = "model/unet.onnx"; // beside the page

export type Result = Outlined & { where: Where };

export class Engine {
  where: Where = "here";
  /** The model of this computer, as soon as it is there; refused where it does not fit. */
  readonly loaded: Promise<Loaded>;
  private readonly client = new Client();

  constructor(progress: Progress) {
    this.loaded = this.client.call("load", { model: new URL(MODEL, document.baseURI).href }, progress);
    this.loaded.catch(() => undefined); // whoever asks for an outline is told
  }

  /** Whether this browser can compute at all. */
  static get isPossible(): boolean {
    return typeof WebAssembly === "object" && typeof Worker === "function" && typeof DecompressionStream === "function";
  }

  async outline(given: Given, signal: AbortSignal, follow: Follow): Promise<Result> {
    if (this.where === "here") await this.loaded.catch((error) => this.give(error));
    signal.throwIfAborted();
    if (this.where === "server") return { ...(await remote.outline(given, signal, this.client, follow)), where: "server" };
    const progress: Progress = (done, all) => follow({ stage: "outlining", done, all, place: null });
    return { ...(await this.client.call("outline", given, progress, signal)), where: "here" };
  }

  /** Where the model cannot be run here, the page may have gone over to the server meanwhile. */
  private give(error: unknown): void {
    if (this.where === "here") throw error;
  }

  /** Another rule on what is shown. The server is asked for the files again, this computer has the probabilities. */
  async apply(given: Given, choice: Choice, shown: Result, signal: AbortSignal): Promise<Result> {
    if (shown.where === "server") return { ...(await remote.outline({ ...given, choice }, signal, this.client)), where: "server" };
    return { ...shown, ...(await this.client.call("apply", choice)) };
  }

  count(mask: Uint8Array): Promise<Numbers> {
    return this.client.call("count", mask);
  }

  async reference(items: Item[]): Promise<Uint8Array> {
    if (!items.length) throw new Refusal("No mask in there", "Drop a mask");
    return this.client.call("reference", items);
  }

  /** The mask as DICOM SEG; of a series that this computer read. */
  seg(mask: Uint8Array, outline: Outline): Promise<Uint8Array> {
    return this.client.call("seg", { mask, outline });
  }

  score(reference: Uint8Array, mask: Uint8Array): Promise<Scores> {
    return this.client.call("score", { reference, mask });
  }
}

export async function describe(loaded: Promise<Loaded>): Promise<Model> {
  return (await loaded).model;
}

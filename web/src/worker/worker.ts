// The engine in a worker of its own, so that the page stays quick while it computes.

import { Desk } from "../core/desk";
import { Engine } from "../core/engine";
import { describeModel } from "../core/modelFile";
import { CancelledError } from "../core/outliner";
import { Refusal } from "../core/refusal";
import type { Calls, Loaded, Name, Reply, Request } from "./protocol";
import { fetchModel, openBest } from "./runtime";

type Work = { [N in Name]: (given: Calls[N]["takes"], id: number) => Promise<Calls[N]["gives"]> | Calls[N]["gives"] };

let engine: Engine | null = null;
const desk = new Desk();
const cancelled = new Set<number>();

const work: Work = {
  async load({ model }, id) {
    const bytes = await fetchModel(model, (done, all) => reply({ id, done, all }));
    let chosen: Pick<Loaded, "provider" | "threads"> = { provider: "wasm", threads: 1 };
    engine = await Engine.load(bytes, async (content) => {
      const { network, ...rest } = await openBest(content);
      chosen = rest;
      return network;
    });
    void import("../core/dicom"); // so that a series opens without the network too
    return { model: describeModel(engine.file.facts), sha256: engine.file.sha256, ...chosen };
  },
  async outline(given, id) {
    const own = loaded();
    const outlined = await own.outline(given, {
      progress: (done, all) => reply({ id, done, all }),
      cancelled: () => cancelled.has(id),
    });
    desk.shown = own.shown;
    return outlined;
  },
  apply: (choice) => loaded().apply(choice),
  adopt(shown) {
    desk.shown = shown;
    return null;
  },
  count: (mask) => desk.count(mask),
  reference: (items) => desk.reference(items),
  seg: ({ mask, outline }) => desk.seg(mask, outline),
  score: ({ reference, mask }) => desk.score(reference, mask),
};

function loaded(): Engine {
  if (!engine) throw new Refusal("The model is not loaded", "Load the page again", true);
  return engine;
}

function reply(message: Reply, transfer: Transferable[] = []): void {
  postMessage(message, { transfer });
}

addEventListener("message", async ({ data }: MessageEvent<Request>) => {
  if ("cancel" in data) {
    cancelled.add(data.cancel);
    return;
  }
  const { id, name, given } = data;
  try {
    const result = await (work[name] as (given: unknown, id: number) => unknown)(given, id);
    reply({ id, result }, buffersIn(result));
  } catch (error) {
    if (error instanceof CancelledError) reply({ id, cancelled: true });
    else if (error instanceof Refusal) reply({ id, refusal: { what: error.what, fix: error.fix, again: error.again } });
    else reply({ id, error: error instanceof Error ? `${error.name}: ${error.message}` : String(error) });
  }
  cancelled.delete(id);
});

/** The memory of large arrays, which goes to the page without being copied. */
function buffersIn(result: unknown): Transferable[] {
  const parts = ArrayBuffer.isView(result) ? [result] : Object.values((result ?? {}) as object);
  const values = parts.map((part) => (part && typeof part === "object" && "values" in part ? part.values : part));
  return [...new Set(values.filter((value) => ArrayBuffer.isView(value)).map((value) => value.buffer as ArrayBuffer))];
}

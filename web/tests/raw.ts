// The network in a browser, without the page: raw probabilities of a slice, for a test to compare with Python's.

import { fetchModel, openBest } from "../src/worker/runtime";

async function raw(model: string, input: string): Promise<number[]> {
  const { network } = await openBest(await fetchModel(model, () => undefined));
  return [...(await network.run(new Float32Array(await (await fetch(input)).arrayBuffer())))];
}

Object.assign(window, { raw });

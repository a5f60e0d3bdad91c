// The network in ONNX Runtime for the web.

import type { InferenceSession, Tensor } from "onnxruntime-web";

import type { Network } from "./outliner";
import { Refusal } from "./refusal";

const [INPUT, OUTPUT] = ["image", "probability"];

/** What is used of the library, whichever of its builds it comes from. */
export interface Runtime {
  InferenceSession: { create(bytes: Uint8Array, options: InferenceSession.SessionOptions): Promise<InferenceSession> };
  Tensor: new (type: "float32", data: Float32Array, dims: readonly number[]) => Tensor;
}

export async function openNetwork(bytes: Uint8Array, runtime: Runtime, provider: "wasm" | "webgpu"): Promise<Network> {
  const session = await runtime.InferenceSession.create(bytes, { executionProviders: [provider], logSeverityLevel: 3 });
  const [, side, , depth] = shapeOf(session.inputMetadata, INPUT);
  const [, , , answers] = shapeOf(session.outputMetadata, OUTPUT);
  return {
    side: side!,
    depth: depth!,
    answers: answers!,
    async run(input) {
      const given = new runtime.Tensor("float32", input, [1, side!, side!, depth!]);
      const answer = (await session.run({ [INPUT]: given }))[OUTPUT]!;
      const data = (await answer.getData()) as Float32Array;
      given.dispose();
      return data;
    },
  };
}

function shapeOf(metadata: readonly InferenceSession.ValueMetadata[], name: string): number[] {
  const found = metadata.find((value) => value.name === name);
  if (!found?.isTensor || found.shape.length !== 4) throw new Refusal("The model is of another version than the page", "Load the page again");
  return found.shape.map(Number);
}

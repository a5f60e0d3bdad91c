// ONNX Runtime in the browser: on the graphics card where that gives the same numbers, else in WebAssembly.

import wasmScript from "onnxruntime-web/ort-wasm-simd-threaded.mjs?url";
import wasmBinary from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";

import { openNetwork, type Runtime } from "../core/network";
import type { Network } from "../core/outliner";
import { Refusal } from "../core/refusal";

const MOST_THREADS = 4; // more gain little on a network of this size
const TOLERANCE = 1e-4; // in a probability: as much as an exported file may differ from its network

export interface Opened {
  network: Network;
  provider: "wasm" | "webgpu";
  threads: number;
}

export async function fetchModel(address: string, progress: (done: number, all: number) => void): Promise<Uint8Array> {
  const lost = new Refusal("The model could not be loaded", "Check the connection, then load the page again", true);
  const response = await fetch(address).catch(() => null);
  if (!response?.ok || !response.body) throw lost;
  const all = Number(response.headers.get("Content-Length")) || 0;
  const parts: Uint8Array[] = [];
  let done = 0;
  try {
    for await (const part of chunks(response.body)) {
      parts.push(part);
      done += part.length;
      progress(done, Math.max(all, done));
    }
  } catch {
    throw lost;
  }
  const whole = new Uint8Array(done);
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
}

async function* chunks(stream: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) yield value!;
}

export async function openBest(bytes: Uint8Array): Promise<Opened> {
  const threads = globalThis.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1;
  const fast = await openGraphics(bytes).catch(() => null);
  return { network: fast ?? (await openWasm(bytes, threads)), provider: fast ? "webgpu" : "wasm", threads };
}

async function openWasm(bytes: Uint8Array, threads: number): Promise<Network> {
  const runtime = await import("onnxruntime-web/wasm");
  runtime.env.wasm.wasmPaths = { mjs: absolute(wasmScript), wasm: absolute(wasmBinary) };
  runtime.env.wasm.numThreads = threads;
  return openNetwork(bytes, runtime, "wasm");
}

/** Null where there is no graphics card, or where it answers a test picture otherwise than the processor does. */
async function openGraphics(bytes: Uint8Array): Promise<Network | null> {
  const gpu = (navigator as { gpu?: { requestAdapter(): Promise<{ info?: { isFallbackAdapter?: boolean } } | null> } }).gpu;
  const adapter = await gpu?.requestAdapter();
  if (!adapter || adapter.info?.isFallbackAdapter) return null;
  const [runtime, { default: script }, { default: binary }] = await Promise.all([
    import("onnxruntime-web/webgpu"),
    import("onnxruntime-web/ort-wasm-simd-threaded.asyncify.mjs?url"),
    import("onnxruntime-web/ort-wasm-simd-threaded.asyncify.wasm?url"),
  ]);
  runtime.env.wasm.wasmPaths = { mjs: absolute(script), wasm: absolute(binary) };
  runtime.env.wasm.numThreads = 1;
  const fast = await openNetwork(bytes, runtime as Runtime, "webgpu");
  const exact = await openNetwork(bytes, runtime as Runtime, "wasm");
  const picture = testPicture(fast);
  const [ours, theirs] = [await fast.run(picture), await exact.run(picture)];
  return ours.every((value, at) => Math.abs(value - theirs[at]!) <= TOLERANCE) ? fast : null;
}

/** A bright disc with a brighter spot in it, on black: something of a head. */
function testPicture({ side, depth }: Network): Float32Array {
  const picture = new Float32Array(side * side * depth);
  for (let at = 0; at < picture.length; at++) {
    const [y, x] = [Math.floor(at / depth / side) / side - 0.5, (Math.floor(at / depth) % side) / side - 0.5];
    picture[at] = Math.hypot(x, y) > 0.4 ? 0 : Math.hypot(x - 0.15, y) < 0.1 ? 220 : 100 + 40 * Math.sin(20 * x) * Math.cos(15 * y);
  }
  return picture;
}

/** The library resolves addresses against its own file. */
function absolute(address: string): string {
  return new URL(address, import.meta.url).href;
}

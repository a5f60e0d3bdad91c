// Answers the cases of a folder in Node, as the page does in the browser, for a test in Python to compare with Python's own.
// node golden.mjs FOLDER: reads FOLDER/cases.json and FOLDER/model.onnx, writes beside each case what was made of it.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import * as runtime from "onnxruntime-web";

import { combine, readCase, type Role } from "../src/core/cases";
import { Desk } from "../src/core/desk";
import { discover } from "../src/core/discover";
import { Engine, type Given } from "../src/core/engine";
import { openNetwork } from "../src/core/network";
import { writeNifti } from "../src/core/niftiFile";
import { prepare, type Network } from "../src/core/outliner";
import { Refusal } from "../src/core/refusal";

interface Asked {
  id: string;
  parts: { role: "file" | Role; path: string }[];
  choice: Given["choice"];
  raw?: number; // a slice whose raw probabilities are wanted
  reference?: string[];
  readOnly?: boolean; // stop at the voxels
}

const folder = process.argv[2]!;
const asked = JSON.parse(readFileSync(join(folder, "cases.json"), "utf-8")) as Asked[];
runtime.env.wasm.numThreads = 1;
const model = join(folder, "model.onnx");
let network: Network | undefined;
const open = async (bytes: Uint8Array) => (network = await openNetwork(bytes, runtime, "wasm"));
const engine = existsSync(model) ? await Engine.load(new Uint8Array(readFileSync(model)), open) : undefined;

const item = (path: string) => ({ path, blob: new Blob([readFileSync(join(folder, path))]) });

async function read(each: Asked) {
  const cases = new Map<string, Awaited<ReturnType<typeof readCase>>>();
  for (const role of new Set(each.parts.map((part) => part.role))) {
    const { groups } = await discover(each.parts.filter((part) => part.role === role).map(({ path }) => item(path)));
    if (groups.length !== 1) throw new Refusal(`${groups.length} cases`, "");
    cases.set(role, await readCase(groups[0]!));
  }
  return cases.get("file") ?? combine(Object.fromEntries(cases), each.id);
}

async function answer(each: Asked): Promise<object> {
  const put = (name: string, data: Uint8Array | { buffer: ArrayBufferLike; byteOffset: number; byteLength: number }) =>
    writeFileSync(join(folder, `${each.id}.${name}`), new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  const found = await read(each);
  const { slices, height, width, channels, values } = found.stack;
  put("voxels", values);
  const shape = { slices, height, width, channels, type: values.constructor.name, place: found.place, remarks: found.remarks, noSeg: found.noSeg, numbers: found.numbers };
  if (each.readOnly || !engine || !network) return { shape };
  const { facts } = engine.file;
  const pixel = found.place ? found.place.spacing : [1, 1, 1];
  const images = prepare(found.stack, facts, network.side, [pixel[0]!, pixel[1]!]);
  put("prepared", Buffer.concat(images));
  if (each.raw !== undefined) put("raw", await network.run(Float32Array.from(images[each.raw]!)));
  const outlined = await engine.outline({ name: each.id, parts: each.parts.map(({ role, path }) => ({ role, item: item(path) })), choice: each.choice });
  put("mask", outlined.mask);
  put("probability", outlined.probability);
  if (outlined.apart) put("apart", outlined.apart);
  if (outlined.reference) put("reference", outlined.reference);
  put("mask.nii.gz", await writeNifti(outlined.mask, outlined.image, outlined.place?.geometry ?? null, "a test"));
  const desk = new Desk();
  desk.shown = engine.shown;
  const own = each.reference && (await desk.reference(each.reference.map(item)));
  const scores = own && desk.score(own, outlined.mask);
  return { shape, answer: outlined.answer, scores, referenceRefused: outlined.referenceRefused };
}

const told: Record<string, object> = {};
for (const each of asked) {
  try {
    told[each.id] = await answer(each);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    told[each.id] = { refused: error.what, fix: error.fix };
  }
}
writeFileSync(join(folder, "told.json"), JSON.stringify(told));

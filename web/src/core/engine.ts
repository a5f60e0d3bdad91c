// One case from its files to its answer, and what is asked of the answer afterwards. Runs in a worker; knows no page.

import { answerFor, countUp, PHANTOM_WARNING, type Answer } from "./answer";
import { combine, readCase, type Role } from "./cases";
import type { Shown } from "./desk";
import { discover, stemOf, type Group, type Item } from "./discover";
import { fromGrid, type Pixel } from "./grid";
import { findWindow, type Window } from "./intensity";
import { readModel, type ModelFile } from "./modelFile";
import { CancelledError, predict, prepare, type Network, type Watch } from "./outliner";
import { assess, describeNoScalp } from "./plausibility";
import { readReference } from "./reference";
import { Refusal } from "./refusal";
import { binarise, chooseRule, type Choice, type OnGrid } from "./rule";
import type { Case, Place, Stack } from "./voxels";

const SHOWN = [1, 99.7] as const; // percentiles of the values above the lowest one, as in brainseg's overlays

/** What is outlined: the files of one case, or one file or series for each sequence. */
export interface Given {
  name: string;
  parts: { role: "file" | Role; item: Item }[];
  choice: Choice;
  credit?: string; // whose it is, where that is to be told
}

/** All that a page shows of a case. Masks and probabilities (255ths) lie on the image's own grid. */
export interface Outlined {
  answer: Answer;
  image: Stack;
  place: Place | null;
  numbers: number[];
  mask: Uint8Array;
  probability: Uint8Array;
  apart: Uint8Array | null; // how far the mirrored passes are apart, 255ths
  window: Window; // what is black and what is white, in the image's own units
  reference: Uint8Array | null; // a mask that lay beside the scan
  referenceRefused: string; // why such a mask was not taken
}

/** Of the case that was outlined last, what another rule needs. */
interface Current extends Shown {
  grid: OnGrid;
  warnings: string[];
  seconds: number;
}

export class Engine {
  private current: Current | null = null;

  constructor(
    readonly file: ModelFile,
    private readonly network: Network,
  ) {}

  /** Check a model and open it; `open` makes a network of its bytes. */
  static async load(bytes: Uint8Array, open: (bytes: Uint8Array) => Promise<Network>): Promise<Engine> {
    const file = readModel(bytes);
    return new Engine(file, await open(bytes));
  }

  async outline(given: Given, watch: Watch = {}): Promise<Outlined> {
    const started = performance.now();
    const { facts } = this.file;
    const { side } = this.network;
    const { found, groups } = await read(given);
    const images = prepare(found.stack, facts, side, pixelOf(found));
    const verdict = check(found, images, side, describeNoScalp(this.file.facts.evaluation.test));
    if (watch.cancelled?.()) throw new CancelledError();
    const { levels, apart } = await predict(images, this.network, facts, watch);
    const phantom = facts.model.protocol.source === "phantom" ? [PHANTOM_WARNING] : [];
    const current: Current = {
      given: { ...found, stack: withoutVoxels(found.stack) },
      grid: { levels, side, numbers: found.numbers },
      levels: back(levels, found, side),
      warnings: [...phantom, ...found.remarks, ...(found.noSeg ? [`no DICOM SEG: ${found.noSeg}`] : []), ...verdict],
      seconds: 0,
      slices: groups.length === 1 && groups[0]!.form === "slices" ? groups[0]!.items.map(stemOf) : [],
    };
    const { mask, answer } = this.decide(current, given.choice, started);
    this.current = current;
    return {
      answer, mask, image: found.stack, place: found.place, numbers: found.numbers, probability: current.levels.slice(),
      apart: apart && back(apart, found, side), window: findWindow(found.stack, SHOWN), ...(await besides(groups, current)),
    }; // prettier-ignore
  }

  /** Another rule on the probabilities of the last case. */
  apply(choice: Choice): { mask: Uint8Array; answer: Answer } {
    return this.decide(this.now, choice);
  }

  /** The case for what comes after: counting, comparing. */
  get shown(): Shown {
    return this.now;
  }

  private get now(): Current {
    if (!this.current) throw new Error("nothing was outlined yet");
    return this.current;
  }

  private decide(current: Current, choice: Choice, started?: number): { mask: Uint8Array; answer: Answer } {
    const { given, grid, levels } = current;
    const rule = chooseRule(this.file.facts, choice);
    const { width, height } = given.stack;
    const mask = binarise(grid, rule, { width, height, pixel: pixelOf(given) });
    const numbers = countUp(given, mask, levels);
    if (started !== undefined) current.seconds = Math.round(performance.now() - started) / 1000;
    return { mask, answer: answerFor(given, numbers, this.file.facts, rule, current.warnings, current.seconds) };
  }
}

/** What speaks against an answer. Refused is what is no head at all, and a mask in place of a scan. */
function check(found: Case, images: Uint8Array[], side: number, noScalp: string): string[] {
  if (hasTwoValues(found.stack)) {
    throw new Refusal(`${found.name}: is a mask by its values, which are only two`, "To compare it with a scan, open the scan, then drop this on Compare with your own mask");
  }
  const { refused, marks } = assess(images, side, noScalp);
  if (refused) throw new Refusal(`${found.name}: ${marks.join("; ")}`, "Give axial slices of a head, FLAIR or all three sequences");
  return marks;
}

/** The masks that lay beside the scan. One that does not fit does not keep the scan from being outlined. */
async function besides(groups: Group[], current: Current): Promise<Pick<Outlined, "reference" | "referenceRefused">> {
  const masks = groups.flatMap((group) => group.masks);
  if (!masks.length) return { reference: null, referenceRefused: "" };
  try {
    return { reference: await readReference(masks, current.given, current.slices), referenceRefused: "" };
  } catch (error) {
    if (error instanceof Refusal) return { reference: null, referenceRefused: `${error.what}. ${error.fix}` };
    throw error;
  }
}

/** The case in what is given, and the files that it is made of. */
async function read({ name, parts }: Given): Promise<{ found: Case; groups: Group[] }> {
  const roles = [...new Set(parts.map(({ role }) => role))];
  const groups: Group[] = [];
  const cases: Partial<Record<Role | "file", Case>> = {};
  for (const role of roles) {
    const group = await only(parts.filter((part) => part.role === role).map(({ item }) => item));
    groups.push(group);
    cases[role] = await readCase(group);
  }
  return { found: { ...(cases.file ?? combine(cases as Partial<Record<Role, Case>>, name)), name }, groups };
}

async function only(items: Item[]): Promise<Group> {
  const { groups, lone } = await discover(items);
  if (groups.length === 1) return groups[0]!;
  if (!groups.length && lone.length) throw new Refusal("There are only masks in there, by their names", "Drop the scan as well, or open it first and drop the mask on it");
  if (!groups.length) throw new Refusal("Nothing to outline in there", "Drop a picture, a volume, or the files of one DICOM series");
  const shown = groups.slice(0, 3).map(({ label }) => label).join(", "); // prettier-ignore
  throw new Refusal(`There are ${groups.length} cases in there: ${shown}${groups.length > 3 ? ", ..." : ""}`, "Drop one at a time, or use Assign sequences for those of one patient");
}

function pixelOf({ place }: Pick<Case, "place">): Pixel {
  return place ? [place.spacing[0], place.spacing[1]] : [1, 1];
}

function withoutVoxels(stack: Stack): Stack {
  return { ...stack, values: new Uint8Array(0) };
}

/** Levels on the grid of all slices, on the slices' own grid. */
function back(levels: Uint8Array, given: Pick<Case, "stack" | "place">, side: number): Uint8Array {
  const { slices, width, height } = given.stack;
  const result = new Uint8Array(slices * width * height);
  for (let s = 0; s < slices; s++) {
    result.set(fromGrid(levels.subarray(s * side * side, (s + 1) * side * side), side, width, height, pixelOf(given)), s * width * height);
  }
  return result;
}

function hasTwoValues({ values }: Stack): boolean {
  let [first, second] = [values[0]!, values[0]!];
  for (const value of values) {
    if (value === first || value === second) continue;
    if (first !== second) return false;
    second = value;
  }
  return first !== second;
}

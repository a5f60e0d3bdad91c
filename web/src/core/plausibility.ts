// Does a picture look like an axial slice of a head? The same measures, limits and words as brainseg.inference.plausibility.

import { describe, type SliceMeasures } from "./headMeasures";
import type { Scores } from "./modelFile";
import { decimals, percentile } from "./rounding";

const MAX_SLICES = 40; // slices of a volume at most, evenly spaced
const ROUGH = 0.3;
const FILLED = 0.35;
const [CT_RING, CT_GAP, CT_CLIPPED, CT_SPREAD] = [1.5, 0.75, 0.5, 0.2];
const BONE_VOLUME = 0.4;
const BONE_SLICE = 0.3;
const EDGE = ", and may miss lesions at the brain's edge";
const NO_SCALP = `no scalp: a model of whole heads has hardly seen such scans${EDGE}`;
const MAX_LOSS = 0.02;

type Measure = keyof SliceMeasures;

const LIMITS: { measure: Measure; usual: number; limit: number; words: string }[] = [
  { measure: "corners", usual: 0, limit: 0.15, words: "its corners are bright: a photograph, or cut out of something larger?" },
  { measure: "contact", usual: 0, limit: 0.4, words: "the picture's edge cuts it off: neck, limb or trunk?" },
  { measure: "length", usual: 1.25, limit: 1.06, words: "hardly longer than wide: turned on its side, or another part of the body?" },
  { measure: "length", usual: 1.25, limit: 1.46, words: "too long and narrow: another part of the body, or pixels that are not square?" },
  { measure: "oval", usual: 0.955, limit: 0.89, words: "its outline is no oval: face, sagittal or coronal slice, another part of the body?" },
  { measure: "mirror", usual: 0.975, limit: 0.9, words: "left and right outlines differ: a sagittal slice?" },
];

export interface Verdict {
  refused: boolean; // clearly no slice of a head
  marks: string[];
}

/** The mark for a scan without scalp: with what the model scores on such scans of its own patients, if known. */
export function describeNoScalp(test: Scores | undefined): string {
  const without = test?.alone?.stripped_dice;
  const whole = test?.volume?.dice?.mean;
  if (without == null || whole == null) return NO_SCALP;
  const [low, high] = [without, whole].map((dice) => decimals(dice, 2).toFixed(2));
  const told = `no scalp: on its own patients this model has a volume Dice of ${low} so, ${high} with scalp`;
  return whole - without > MAX_LOSS ? told + EDGE : told;
}

/** `prepared`: slices on the model's grid, bytes, three channels. */
export function assess(prepared: Uint8Array[], side: number, noScalp = NO_SCALP): Verdict {
  const step = Math.ceil(prepared.length / MAX_SLICES);
  const looks = prepared.filter((_, n) => n % step === 0).map((picture) => describe(picture, side)).filter((look) => look !== null); // prettier-ignore
  if (!looks.length) return { refused: true, marks: ["nothing to see: no more than one grey value and a little noise"] };
  const look = takeMedians(looks);
  const single = prepared.length === 1;
  const said = single ? "does not look like an axial brain slice" : "the middle slices do not look like axial brain slices";
  const clear = refusalReason(look);
  if (clear) return { refused: true, marks: [`${said} (${clear})`] };
  const reasons = doubtReasons(look);
  const marks = reasons.length ? [`${said} (${reasons.join("; ")})`] : [];
  if (look.bone < (single ? BONE_SLICE : BONE_VOLUME)) marks.push(noScalp);
  return { refused: false, marks };
}

/** Medians over the slices that show at least half of the largest area of the head; of bone the upper quartile. */
function takeMedians(looks: SliceMeasures[]): SliceMeasures {
  const most = (measure: Measure, of: SliceMeasures[]) => Math.max(...of.map((look) => look[measure]));
  const lit = looks.filter((look) => look.level >= 0.3 * most("level", looks));
  const large = lit.filter((look) => look.area >= 0.5 * most("area", lit));
  const quantile = (measure: Measure) => {
    const sorted = large.map((look) => look[measure]).sort((a, b) => a - b);
    return percentile((rank) => sorted[rank]!, sorted.length, measure === "bone" ? 75 : 50);
  };
  return Object.fromEntries(Object.keys(looks[0]!).map((name) => [name, quantile(name as Measure)])) as unknown as SliceMeasures;
}

function refusalReason(look: SliceMeasures): string {
  if (look.roughness > ROUGH) return "neighbouring pixels differ as in noise or print";
  return look.corners > FILLED ? "bright up to its corners: a photograph, a pattern, or cut out of something larger?" : "";
}

function doubtReasons(look: SliceMeasures): string[] {
  const found: string[] = [];
  const excess = LIMITS.map(({ measure, usual, limit, words }) => ({ value: Math.max(0, (look[measure] - usual) / (limit - usual)), words }));
  if (Math.hypot(...excess.map(({ value }) => value)) >= 1) {
    excess.sort((a, b) => b.value - a.value || (a.words < b.words ? 1 : -1));
    const least = Math.max(0.5, excess[0]!.value / 2);
    const clear = excess.filter(({ value }) => value >= least);
    found.push(...(clear.length ? clear : [excess[0]!]).map(({ words }) => words));
  }
  if (look.ring > CT_RING && look.gap > CT_GAP && (look.clipped > CT_CLIPPED || look.spread < CT_SPREAD)) {
    found.push("a bright ring right around the inside, nothing dark between: a CT?");
  }
  return found;
}

// What is told of an outline: the JSON of POST /v1/segment, without volumes. The Python side: brainseg.server.responses.

import { findLesions, MOST, type Lesion } from "./lesions";
import { measure, type SliceFacts, type Summary } from "./measure";
import { marks, type Facts } from "./modelFile";
import { decimals } from "./rounding";
import type { Rule } from "./rule";
import type { Case, Kind, Triple } from "./voxels";

export const DISCLAIMER = "Research use only. Not for clinical use.";
export const PHANTOM_WARNING = "the model was trained on drawn phantoms and not on real brains: its outlines mean nothing for patients";

export interface Answer {
  disclaimer: string;
  model: { weights_sha256: string; variant: string; marks: string[] };
  input: {
    kind: Kind;
    /** Of slices that are numbered pictures. */
    numbers: number[] | null;
    slices: number;
    height: number;
    width: number;
    spacing_mm: Triple | null;
    orientation: "known" | "unknown";
    channels: string[];
  };
  /** Whether the mask can be had as DICOM SEG. */
  seg: boolean;
  warnings: string[];
  summary: Summary & { seconds: number };
  slices: SliceFacts[];
  rule: { threshold: number; min_component: number; min_share: number; of_the_model: boolean };
  lesions: Lesion[];
}

/** The numbers of a mask, which may be edited since the model made it. */
export type Numbers = Pick<Answer, "slices" | "lesions"> & { summary: Summary };

type Measured = Pick<Case, "stack" | "place" | "numbers">;

export function countUp(given: Measured, mask: Uint8Array, levels: Uint8Array): Numbers {
  const lesions = findLesions(mask, levels, given.stack, given.numbers, given.place);
  return { ...measure(mask, levels, given.stack, given.place), lesions };
}

export function answerFor(given: Case, numbers: Numbers, facts: Facts, rule: Rule, warnings: string[], seconds: number): Answer {
  const { slices, height, width } = given.stack;
  const cut = numbers.lesions.length === MOST ? [`at most the ${MOST} largest lesions are listed`] : [];
  return {
    disclaimer: DISCLAIMER,
    model: { weights_sha256: facts.model.weights_sha256, variant: facts.variant, marks: marks(facts) },
    input: {
      kind: given.kind, numbers: given.kind === "slices" ? [...given.numbers] : null, slices, height, width, spacing_mm: given.place ? (given.place.spacing.map((side) => decimals(side, 6)) as Triple) : null,
      orientation: given.place ? "known" : "unknown", channels: given.channels,
    },
    seg: given.origin !== null,
    warnings: [...rule.remarks, ...warnings, ...cut],
    ...numbers,
    summary: { ...numbers.summary, seconds },
    rule: { threshold: rule.threshold, min_component: rule.min_component, min_share: rule.min_share, of_the_model: rule.ofTheModel },
  }; // prettier-ignore
}

// Stored values of a volume to intensities, or to labels. The Python side: brainseg.io.values.

import { Refusal } from "./refusal";
import { rint } from "./rounding";
import type { Values } from "./voxels";

const MAX_INTEGER = 2 ** 24; // float32 holds every integer up to this one
const MAX_LABEL = 2 ** 16 - 1;
const ROUNDING = 1e-3; // from a whole number: labels scaled by a float32 slope such as 1/255 are not exact

export type Stored = Values | Int8Array | Int32Array | Uint32Array | Float64Array | BigInt64Array | BigUint64Array;

/** A value is slope * stored + intercept; null where it is the stored one. */
export type Scaling = { slope: number; intercept: number } | null;

export function toIntensities(stored: Stored, scaling: Scaling): Values {
  if (!scaling && (stored instanceof Uint8Array || stored instanceof Uint16Array || stored instanceof Int16Array)) return stored;
  const values = !scaling && stored instanceof Float32Array ? stored : scaled(stored, scaling);
  const bad = values.reduce((count, value) => count + Number(!Number.isFinite(value)), 0);
  if (bad) throw new Refusal(`holds ${bad} voxels that are NaN, infinite or beyond float32`, "Set them to the background's value");
  return values;
}

/** Whole numbers from 0 to 65535. */
export function toLabels(stored: Stored, scaling: Scaling): Uint16Array {
  const labels = new Uint16Array(stored.length);
  const { slope, intercept } = scaling ?? { slope: 1, intercept: 0 };
  for (let i = 0; i < labels.length; i++) {
    const value = Number(stored[i]!) * slope + intercept;
    const whole = rint(value);
    if (!(whole >= 0 && whole <= MAX_LABEL && Math.abs(value - whole) <= ROUNDING)) {
      const what = `holds the value ${Number(value.toPrecision(9))}, labels must be whole numbers 0 to ${MAX_LABEL}`;
      throw new Refusal(what, "Save the mask with its labels as such numbers; of probabilities, the outline");
    }
    labels[i] = whole;
  }
  return labels;
}

function scaled(stored: Stored, scaling: Scaling): Float32Array {
  const values = new Float32Array(stored.length);
  const { slope, intercept } = scaling ?? { slope: 1, intercept: 0 };
  const whole = !scaling && !(stored instanceof Float64Array);
  for (let i = 0; i < values.length; i++) {
    const own = Number(stored[i]!);
    if (whole && Math.abs(own) > MAX_INTEGER) {
      throw new Refusal("holds integers that float32 cannot hold", "Save it as float32 or as 16-bit integers, scaled as you see fit");
    }
    values[i] = slope * own + intercept;
  }
  return values;
}

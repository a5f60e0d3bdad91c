// Areas, volume and mean probability of an outline. The Python side: brainseg.inference.answers.measurements.

import { decimals } from "./rounding";
import type { Place, Stack } from "./voxels";

export interface SliceFacts {
  slice: number; // from 1
  pixels: number;
  area_mm2: number | null;
  mean_probability: number | null;
}

export interface Summary {
  tumour_pixels: number;
  slices_with_tumour: number;
  largest_slice: number | null;
  area_mm2: number | null;
  area_pixels: number;
  volume_ml: number | null;
  mean_probability: number | null;
}

type Size = Pick<Stack, "slices" | "height" | "width">;

/** Null stands for what is not known, or does not exist because there is no tumour. Probabilities are 255ths. */
export function measure(mask: Uint8Array, levels: Uint8Array, size: Size, place: Place | null): { summary: Summary; slices: SliceFacts[] } {
  const area = size.height * size.width;
  const pixel = place ? place.spacing[0] * place.spacing[1] : null;
  const slices: SliceFacts[] = [];
  let sum = 0;
  for (let s = 0; s < size.slices; s++) {
    let [pixels, levelsInside] = [0, 0];
    for (let at = s * area; at < (s + 1) * area; at++) {
      if (!mask[at]) continue;
      pixels++;
      levelsInside += levels[at]!;
    }
    sum += levelsInside;
    slices.push({ slice: s + 1, pixels, area_mm2: round(pixel && pixels * pixel, pixel), mean_probability: mean(levelsInside, pixels) });
  }
  const all = slices.reduce((total, { pixels }) => total + pixels, 0);
  const largest = slices.reduce((best, each) => (each.pixels > best.pixels ? each : best), slices[0]!);
  return {
    slices,
    summary: {
      tumour_pixels: all,
      slices_with_tumour: slices.filter(({ pixels }) => pixels > 0).length,
      largest_slice: all ? largest.slice : null,
      area_mm2: round(pixel && largest.pixels * pixel, pixel),
      area_pixels: largest.pixels,
      volume_ml: place && decimals((all * place.spacing[0] * place.spacing[1] * place.spacing[2]) / 1000, 3),
      mean_probability: mean(sum, all),
    },
  };
}

function round(value: number | null, known: number | null): number | null {
  return known === null ? null : decimals(value ?? 0, 3);
}

function mean(levels: number, pixels: number): number | null {
  return pixels ? decimals(levels / pixels / 255, 4) : null;
}

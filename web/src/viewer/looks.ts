// Views, layers and colours: what the rest of the page knows of the pictures before NiiVue is there.

import type { Axis } from "../core/editing";

export type Fill = "mask" | "probability" | "apart" | "compare" | "none";
export type View = "axial" | "coronal" | "sagittal" | "planes" | "solid";
export type Colour = readonly [number, number, number];

/** The axis that the slices of a view are counted along. */
export const ACROSS: Record<View, Axis> = { axial: 0, coronal: 1, sagittal: 2, planes: 0, solid: 0 };

export const TUMOUR: Colour = [255, 92, 51];
export const REFERENCE: Colour = [86, 214, 255];
// Of the report's figures. They differ most, also for the colour-blind.
export const FOUND: Colour = [86, 180, 233];
export const FALSE: Colour = [213, 94, 0];
export const MISSED: Colour = [240, 228, 66];

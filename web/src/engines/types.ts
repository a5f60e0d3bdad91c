// The answer as the page uses it, whoever gave it.

import type { Answer as Told } from "../core/answer";
import type { Geometry } from "../core/voxels";

export type { SliceFacts } from "../core/measure";
export type { Lesion } from "../core/lesions";

/** `geometry`: of the file, where a server tells it. */
export type Answer = Told & { input: Told["input"] & { geometry?: Geometry | null } };

/** How far an outline is. `done` of `all`: bytes while it is sent, slices while they are outlined, 0 where it is not known. */
export interface Step {
  stage: "uploading" | "waiting" | "reading" | "outlining" | "answering";
  done: number;
  all: number;
  place: number | null; // in the server's queue; 1 is the next
}

export type Follow = (step: Step) => void;

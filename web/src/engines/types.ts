// The answer as the page uses it, whoever gave it.

import type { Answer as Told } from "../core/answer";
import type { Geometry } from "../core/voxels";

export type { SliceFacts } from "../core/measure";
export type { Lesion } from "../core/lesions";

/** `geometry`: of the file, where a server tells it. */
export type Answer = Told & { input: Told["input"] & { geometry?: Geometry | null } };

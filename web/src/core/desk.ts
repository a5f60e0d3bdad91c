// The case that is looked at, without its voxels: what is counted, compared and read of it after it was outlined.

import { countUp, type Numbers } from "./answer";
import { discover, type Item } from "./discover";
import { toFileOrder } from "./orientation";
import { readReference, score, type Scores } from "./reference";
import type { Outline } from "./dicomSeg";
import type { Case } from "./voxels";

export interface Shown {
  given: Case;
  levels: Uint8Array; // probabilities on the image's own grid, 255ths
  slices: string[]; // names of its pictures, where it is made of several
}

export class Desk {
  shown: Shown | null = null;

  /** The numbers of a mask of the case, which may be edited. */
  count(mask: Uint8Array): Numbers {
    return countUp(this.now.given, mask, this.now.levels);
  }

  /** A mask of one's own for the case. */
  async reference(items: Item[]): Promise<Uint8Array> {
    const { groups, lone } = await discover(items);
    return readReference([...lone, ...groups.flatMap((group) => [...group.items, ...group.masks])], this.now.given, this.now.slices);
  }

  score(reference: Uint8Array, mask: Uint8Array): Scores {
    return score(reference, mask, this.now.given);
  }

  /** A mask of the case as DICOM SEG. The library that writes it is fetched when it is needed. */
  async seg(mask: Uint8Array, outline: Outline): Promise<Uint8Array> {
    const { origin, place } = this.now.given;
    if (!origin || !place) throw new Error("no series that a SEG refers to");
    const { writeSeg } = await import("./dicomSeg");
    return writeSeg(toFileOrder(mask, place.geometry), origin, outline);
  }

  private get now(): Shown {
    if (!this.shown) throw new Error("nothing is shown");
    return this.shown;
  }
}

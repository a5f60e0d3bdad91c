// A mask that is drawn on: brush and eraser in a plane, filling of holes, and every step back and forth.

import type { Stack, Triple } from "./voxels";

export type Axis = 0 | 1 | 2; // slices, rows, columns: of a plane, the one that it lies across
type Size = Pick<Stack, "slices" | "height" | "width">;

/** One step: the voxels that changed from 0 to 1 or back, and what the page notes with it. `rule`: the masks that edits are counted from. */
interface Step<Note> {
  changed: number[];
  before: Note;
  after: Note;
  rule?: { before: Uint8Array; after: Uint8Array };
}

export class MaskEditor<Note> {
  private done: Step<Note>[] = [];
  private undone: Step<Note>[] = [];
  private stroke: Set<number> | null = null;
  private original: Uint8Array;
  private apart = 0; // voxels that differ from it

  constructor(
    readonly mask: Uint8Array,
    private readonly size: Size,
    private note: Note,
  ) {
    this.original = mask.slice();
  }

  get canUndo(): boolean {
    return this.done.length > 0;
  }

  get canRedo(): boolean {
    return this.undone.length > 0;
  }

  /** Voxels that differ from what the rule made. */
  get edited(): number {
    return this.apart;
  }

  /** Set the voxels of a disc across an axis. `radii`: in voxels along slices, rows and columns. */
  paint(centre: Triple, axis: Axis, radii: Triple, value: 0 | 1): boolean {
    const [first, second] = [0, 1, 2].filter((n) => n !== axis) as [Axis, Axis];
    const reach = (n: Axis) => Math.ceil(radii[n]);
    let changed = false;
    for (let a = -reach(first); a <= reach(first); a++) {
      for (let b = -reach(second); b <= reach(second); b++) {
        if ((a / radii[first]) ** 2 + (b / radii[second]) ** 2 > 1 && (a || b)) continue;
        const at: Triple = [...centre];
        at[first] += a;
        at[second] += b;
        changed = this.set(at, value) || changed;
      }
    }
    return changed;
  }

  /** Fill the hole in the outline that a voxel of a plane lies in; false where there is none. */
  fill(start: Triple, axis: Axis): boolean {
    const ends = this.ends;
    const [first, second] = [0, 1, 2].filter((n) => n !== axis) as [Axis, Axis];
    if (this.mask[this.index(start)]) return false;
    const reached = new Set([this.index(start)]);
    const waiting: Triple[] = [start];
    for (let at = waiting.pop(); at; at = waiting.pop()) {
      for (const [along, step] of [[first, 1], [first, -1], [second, 1], [second, -1]] as const) {
        const next: Triple = [...at];
        next[along] += step;
        if (next[along] < 0 || next[along] >= ends[along]) return false; // open to the edge of the image
        const index = this.index(next);
        if (this.mask[index] || reached.has(index)) continue;
        reached.add(index);
        waiting.push(next);
      }
    } // prettier-ignore
    for (const index of reached) this.flip(index);
    return true;
  }

  /** End a stroke: what was set since the last one is one step. */
  commit(): void {
    if (this.stroke?.size) this.push({ changed: [...this.stroke], before: this.note, after: this.note });
    this.stroke = null;
  }

  /** Another mask, as of another threshold: a step of its own, which is not an edit. Several in a row are one step. */
  replace(mask: Uint8Array, note: Note): void {
    this.commit();
    const last = this.done.at(-1)?.rule && this.done.pop();
    if (last) this.toggle(last.changed);
    const rule = { before: last?.rule?.before ?? this.original, after: mask.slice() };
    const changed: number[] = [];
    for (let at = 0; at < mask.length; at++) if (this.mask[at] !== mask[at]) changed.push(at);
    this.push({ changed, before: last?.before ?? this.note, after: note, rule });
    this.mask.set(mask);
    this.note = note;
    this.countFrom(rule.after);
  }

  /** The note of the step that is current now; null where there is nothing to take back. */
  undo(): Note | null {
    return this.turn(this.done, this.undone, "before");
  }

  redo(): Note | null {
    return this.turn(this.undone, this.done, "after");
  }

  private turn(from: Step<Note>[], to: Step<Note>[], note: "before" | "after"): Note | null {
    this.commit();
    const step = from.pop();
    if (!step) return null;
    for (const at of step.changed) this.turnOver(at);
    if (step.rule) this.countFrom(step.rule[note]);
    to.push(step);
    this.note = step[note];
    return this.note;
  }

  private toggle(changed: number[]): void {
    for (const at of changed) this.mask[at] = 1 - this.mask[at]!;
  }

  private countFrom(original: Uint8Array): void {
    this.original = original;
    this.apart = 0;
    for (let at = 0; at < original.length; at++) if (this.mask[at] !== original[at]) this.apart++;
  }

  private turnOver(index: number): void {
    this.mask[index] = 1 - this.mask[index]!;
    this.apart += this.mask[index] === this.original[index] ? -1 : 1;
  }

  private push(step: Step<Note>): void {
    this.done.push(step);
    this.undone.length = 0;
  }

  private get ends(): Triple {
    return [this.size.slices, this.size.height, this.size.width];
  }

  private index([slice, row, column]: Triple): number {
    return (slice * this.size.height + row) * this.size.width + column;
  }

  private set(at: Triple, value: 0 | 1): boolean {
    const ends = this.ends;
    if (at.some((place, n) => place < 0 || place >= ends[n]!) || this.mask[this.index(at)] === value) return false;
    this.flip(this.index(at));
    return true;
  }

  private flip(index: number): void {
    this.stroke ??= new Set();
    this.turnOver(index);
    if (!this.stroke.delete(index)) this.stroke.add(index);
  }
}

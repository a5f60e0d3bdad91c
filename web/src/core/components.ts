// Parts of a mask that hang together by the faces of voxels. The Python side: brainseg.inference.postprocessing.

/** Number the parts from 1, in the order of their first voxels; 0 outside. `counts[n]`: voxels of part n. */
export interface Components {
  labels: Int32Array;
  counts: number[];
}

export function components(mask: Uint8Array, slices: number, height: number, width: number): Components {
  const labels = new Int32Array(mask.length);
  const parents = [0];
  const root = (label: number) => {
    while (parents[label] !== label) label = parents[label] = parents[parents[label]!]!;
    return label;
  };
  const area = height * width;
  for (let s = 0, at = 0; s < slices; s++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++, at++) {
        if (!mask[at]) continue;
        const before = [x && labels[at - 1]!, y && labels[at - width]!, s && labels[at - area]!].filter(Boolean).map(root);
        const own = before.length ? Math.min(...before) : parents.push(parents.length) - 1;
        for (const other of before) parents[other] = own;
        labels[at] = own;
      }
    }
  }
  return numbered(labels, root);
}

function numbered(labels: Int32Array, root: (label: number) => number): Components {
  const numbers = new Map<number, number>();
  const counts = [0];
  for (let at = 0; at < labels.length; at++) {
    if (!labels[at]) continue;
    const top = root(labels[at]!);
    let number = numbers.get(top);
    if (number === undefined) {
      numbers.set(top, (number = counts.length));
      counts.push(0);
    }
    counts[number]!++;
    labels[at] = number;
  }
  return { labels, counts };
}

export interface Volume {
  slices: number;
  height: number;
  width: number;
}

/** The mask without parts of fewer voxels, or of a smaller share of the largest part's voxels. */
export function removeSmall(mask: Uint8Array, { slices, height, width }: Volume, min_component: number, share = 0): Uint8Array {
  if ((min_component <= 1 && !share) || !mask.includes(1)) return mask.slice();
  const { labels, counts } = components(mask, slices, height, width);
  const largest = counts.reduce((most, count) => Math.max(most, count));
  const fewest = Math.max(1, min_component, share * largest);
  const kept = new Uint8Array(mask.length);
  for (let at = 0; at < kept.length; at++) kept[at] = labels[at] && counts[labels[at]!]! >= fewest ? 1 : 0;
  return kept;
}

/** Runs of numbers that follow each other, as [first, past the last] of their places. */
export function runs(numbers: readonly number[]): [number, number][] {
  const found: [number, number][] = [];
  numbers.forEach((number, place) => {
    const last = found.at(-1);
    if (last && number === numbers[place - 1]! + 1) last[1] = place + 1;
    else found.push([place, place + 1]);
  });
  return found;
}

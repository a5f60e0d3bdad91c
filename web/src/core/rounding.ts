// Rounding as NumPy and Python do it: a half goes to the even neighbour.

export function rint(value: number): number {
  const near = Math.round(value); // a half goes up
  return near - value === 0.5 && near % 2 !== 0 ? near - 1 : near;
}

/** To so many decimals, as Python's round. toFixed knows a number to its last bit, but takes a half up. */
export function decimals(value: number, digits: number): number {
  const scaled = value * 10 ** digits;
  const isHalf = Number.isInteger(value * 2 ** (digits + 1)) && Math.abs(scaled % 1) === 0.5;
  return isHalf ? rint(scaled) / 10 ** digits : Number(value.toFixed(digits));
}

/** Interpolate linearly between the two values whose ranks are nearest, as np.percentile; `at` gives the value of a rank. */
export function percentile(at: (rank: number) => number, count: number, percent: number): number {
  const place = (percent / 100) * (count - 1);
  const below = Math.floor(place);
  const lower = at(below);
  return lower + (at(Math.min(below + 1, count - 1)) - lower) * (place - below);
}

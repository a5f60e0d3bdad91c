// One page to print: key slices with the outline, numbers, model, cautions.

import { DISCLAIMER } from "./core/answer";
import * as judge from "./judge";
import { element, measured, number, percent, sentence, words } from "./page";
import * as results from "./results";
import { sketch } from "./sketch";
import { edited, state } from "./state";

const MOST_SLICES = 6;
const SIDE = 300; // pixels of a picture's longer side
const MOST_LESIONS = 5;

export function print(): void {
  if (!state.shown) return;
  element("report").replaceChildren(...page());
  window.print();
}

function page(): HTMLElement[] {
  const { given, result, numbers } = state.shown!;
  const { answer } = result;
  const head = words("header", "");
  head.append(words("h1", "Outline of a glioma by brainseg"), words("p", DISCLAIMER, "use"));
  const { input } = answer;
  const size = `${input.width} × ${input.height} × ${input.slices}${input.spacing_mm ? `, ${input.spacing_mm.map((mm) => number(mm, 2)).join(" × ")} mm` : ", pixel size unknown"}`;
  const facts = words("p", `${given.name}: ${size}. Sequences: ${[...new Set(input.channels)].join(", ")}. ${new Date().toLocaleDateString("en-GB")}.`);
  const rows = words("dl", "");
  for (const [name, value, detail] of [...results.numbers(numbers.summary, numbers.slices.length), ...judge.rows()]) {
    rows.append(words("dt", name), words("dd", value + (detail ? ` (${detail})` : "")));
  }
  return [head, words("h2", results.verdict()), facts, rows, pictures(), lesionTable(), cautions()];
}

function pictures(): HTMLElement {
  const row = words("div", "", "pictures");
  const { result, editor, reference } = state.shown!;
  const sketched = { ...result, mask: editor.mask, reference };
  for (const slice of keySlices()) {
    const figure = words("figure", "");
    figure.append(sketch(sketched, slice, SIDE), words("figcaption", `slice ${state.shown!.result.numbers[slice]}`));
    row.append(figure);
  }
  return row;
}

/** The slices with tumour, evenly over them, and always the largest; without tumour the middle. */
function keySlices(): number[] {
  const { slices, summary } = state.shown!.numbers;
  const found = slices.filter(({ pixels }) => pixels).map(({ slice }) => slice - 1);
  if (!found.length) return [Math.floor(slices.length / 2)];
  const count = Math.min(MOST_SLICES, found.length);
  const even = Array.from({ length: count }, (_, n) => found[Math.round((n * (found.length - 1)) / Math.max(1, count - 1))]!);
  const largest = summary.largest_slice! - 1;
  if (!even.includes(largest)) {
    const nearest = even.reduce((best, slice, n) => (Math.abs(slice - largest) < Math.abs(even[best]! - largest) ? n : best), 0);
    even[nearest] = largest;
  }
  return even;
}

function lesionTable(): HTMLElement {
  const { lesions } = state.shown!.numbers;
  const table = words("table", "");
  if (!lesions.length) return table;
  const line = (tag: string, cells: string[]) => {
    const row = words("tr", "");
    row.append(...cells.map((cell) => words(tag, cell)));
    return row;
  };
  table.append(line("th", ["Lesion", "Volume", "Largest area", "Diameter", "Slices", "Output"]));
  for (const each of lesions.slice(0, MOST_LESIONS)) {
    const ml = each.volume_ml === null ? `${number(each.voxels)} px` : `${measured(each.volume_ml)} ml`;
    const known = (value: number | null, unit: string) => (value === null ? "–" : `${measured(value)} ${unit}`);
    table.append(line("td", [String(each.lesion), ml, known(each.area_mm2, "mm²"), known(each.max_diameter_mm, "mm"), `${each.first_slice}–${each.last_slice}`, percent(each.mean_probability)]));
  }
  return table;
}

function cautions(): HTMLElement {
  const { answer } = state.shown!.result;
  const list = words("ul", "", "cautions");
  const changed = edited();
  const rule = answer.rule.of_the_model ? "the model's own rule" : "not the model's own rule, so its test results do not hold";
  const share = answer.rule.min_share ? ` or ${Number((100 * answer.rule.min_share).toPrecision(3))} % of the largest` : "";
  const told = [
    `Model ${answer.model.weights_sha256} (${answer.model.variant}); threshold ${answer.rule.threshold}, parts under ${answer.rule.min_component} voxels${share} removed: ${rule}.`,
    changed ? `The mask was edited by hand: ${number(changed)} voxels differ from the model's.` : "The mask is as the model made it.",
    ...answer.warnings,
    ...answer.model.marks,
    "The network's output is not the chance that this is a tumour. It knows lower-grade gliomas on axial MRI that were not operated on, and nothing else.",
  ];
  list.append(...told.map((text) => words("li", sentence(text))));
  return list;
}

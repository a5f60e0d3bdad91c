// Threshold and smallest part: the model's own, or what a person sets. The mask follows at once.

import type { Choice } from "./core/rule";
import { click, element, input, percent } from "./page";
import { refuse } from "./session";
import { emit, on, state } from "./state";

let asking: AbortController | null = null;
let own = NaN; // the model's threshold as the slider, which has steps, shows it
let told = NaN; // the threshold of the mask on the page, in the same way

export function start(): void {
  input("threshold").addEventListener("input", () => {
    tell();
    if (state.shown?.result.where === "here") void take();
  });
  for (const id of ["threshold", "min-component"]) input(id).addEventListener("change", () => void take());
  click("rule-own", () => void ask({}).then(() => state.shown && present()));
  on("opened", () => {
    if (!state.shown) return;
    present();
    own = told;
  });
}

/** A rule that did not come from the fields, in the fields. */
export function present(): void {
  const { rule } = state.shown!.result.answer;
  input("threshold").value = String(rule.threshold);
  told = input("threshold").valueAsNumber;
  input("min-component").value = String(rule.min_component);
  explain();
}

/** The fields stay as they are: a person may be moving them further. */
function explain(): void {
  const { rule } = state.shown!.result.answer;
  element<HTMLButtonElement>("rule-own").disabled = rule.of_the_model;
  element("rule-own-values").textContent = rule.of_the_model
    ? "The model's own rule: its test results hold for it alone. Smaller parts are removed, counted in voxels of the model's grid."
    : "Not the model's own rule: its test results do not hold for this.";
  tell();
}

function tell(): void {
  element("threshold-value").textContent = percent(input("threshold").valueAsNumber);
}

/** What the fields hold and the rule on the page does not have. */
async function take(): Promise<void> {
  const { shown } = state;
  if (!shown || !input("min-component").checkValidity()) return;
  const choice: Choice = { ...shown.given.choice };
  const { rule } = shown.result.answer;
  const [threshold, smallest] = [input("threshold").valueAsNumber, input("min-component").valueAsNumber];
  if (threshold !== told) choice.threshold = threshold;
  if (smallest !== rule.min_component) choice.min_component = smallest;
  if (JSON.stringify(choice) !== JSON.stringify(shown.given.choice)) await ask(choice);
}

/** Apply a rule; of several in a row only the last one is shown. */
export async function ask(choice: Choice): Promise<void> {
  const { shown, engine } = state;
  if (!shown || !engine) return;
  asking?.abort();
  const mine = (asking = new AbortController());
  try {
    const result = await engine.apply(shown.given, choice, shown.result, mine.signal);
    if (asking !== mine || state.shown !== shown) return;
    shown.editor.replace(result.mask, choice);
    adopt(choice, result.answer);
  } catch (error) {
    if (asking === mine && !mine.signal.aborted) refuse(error);
  }
}

/** The numbers of a rule's own mask. */
function adopt(choice: Choice, answer: NonNullable<typeof state.shown>["result"]["answer"]): void {
  const shown = state.shown!;
  shown.given = { ...shown.given, choice };
  shown.result.answer = answer;
  shown.numbers = { summary: answer.summary, slices: answer.slices, lesions: answer.lesions };
  told = choice.threshold ?? own;
  state.unsaved = true;
  explain();
  emit("mask");
}

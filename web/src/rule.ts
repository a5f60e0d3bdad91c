// Threshold and smallest component: what the answer was made with, and another that a person asks for.

import type { Answer, Rule } from "./api";
import { element } from "./page";

const input = (id: string) => element<HTMLInputElement>(id);
let own: Rule | null = null; // the model's, as soon as it is known

export function model(rule: Rule | undefined): void {
  if (!rule) return;
  own = { threshold: rule.threshold, min_component: rule.min_component };
  element("rule-own-values").textContent =
    `The model's own: threshold ${own.threshold}, smallest component ${own.min_component} voxels. Its test results hold for these alone.`;
}

export function present(answer: Answer): void {
  input("threshold").value = String(answer.rule.threshold);
  input("min-component").value = String(answer.rule.min_component);
  element<HTMLButtonElement>("rule-own").disabled = answer.rule.of_the_model;
}

/** What the fields hold and the model does not have of its own. */
export function chosen(): Partial<Rule> {
  const [threshold, smallest] = [input("threshold").valueAsNumber, input("min-component").valueAsNumber];
  const asked: Partial<Rule> = {};
  if (threshold !== own?.threshold) asked.threshold = threshold;
  if (smallest !== own?.min_component) asked.min_component = smallest;
  return asked;
}

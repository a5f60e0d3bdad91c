// How the image is shown: window and level in the file's own units, the layer above it, its sides.

import { CHANNELS, channelOf } from "./core/voxels";
import { checked, click, digits, element, input, percent, show, words } from "./page";
import * as slices from "./slices";
import { on, state } from "./state";
import type { Fill } from "./viewer/looks";

/** Centre and width of the window, and how finely they are set. */
let full = { centre: 127.5, width: 255 };
let step = 1;

export function start(): void {
  for (const id of ["centre", "width"]) input(id).addEventListener("input", takeWindow);
  for (const id of ["opacity", "outline"]) input(id).addEventListener("input", takeLayers);
  for (const name of ["fill", "side"]) {
    document.querySelectorAll(`input[name=${name}]`).forEach((radio) => radio.addEventListener("change", takeLayers));
  }
  element<HTMLSelectElement>("channel").addEventListener("change", (event) => takeChannel((event.target as HTMLSelectElement).selectedIndex));
  click("reset", reset);
  on("opened", opened);
  on("reference", () => {
    show("fill-compare", Boolean(state.shown?.reference));
    if (!state.shown?.reference && checked("fill") === "compare") input_("fill", "mask").checked = true;
    takeLayers();
  });
  on("view", takeSides);
}

export function reset(): void {
  setWindow(full.centre, full.width);
  state.viewer?.fit();
}

/** Change window and level by so many pixels of a drag. */
export function drag(width: number, level: number): void {
  const unit = full.width / 255;
  setWindow(Number(input("centre").value) - (level / 2) * unit, Number(input("width").value) + (width / 2) * unit);
}

/** The next layer that there is. */
export function cycle(): void {
  const all = [...document.querySelectorAll<HTMLInputElement>("input[name=fill]")].filter((radio) => !radio.closest("[hidden]"));
  all[(all.findIndex((radio) => radio.checked) + 1) % all.length]!.checked = true;
  takeLayers();
}

/** The letters at the sides of the picture: left, right, above, below. */
export function letters(): string[] {
  return [...document.querySelectorAll(".mark")].map((mark) => mark.textContent ?? "");
}

function input_(name: string, value: string): HTMLInputElement {
  return document.querySelector<HTMLInputElement>(`input[name=${name}][value=${value}]`)!;
}

function opened(): void {
  const { shown } = state;
  if (!shown) return;
  const { image, answer, apart, where } = { ...shown.result, where: shown.result.where };
  const select = element<HTMLSelectElement>("channel");
  select.replaceChildren(...CHANNELS.map((channel) => words("option", channel)));
  select.selectedIndex = 1;
  show("channel-row", image.channels === 3);
  show("fill-apart", apart !== null);
  if (!apart && checked("fill") === "apart") input_("fill", "mask").checked = true;
  element<HTMLFieldSetElement>("convention").disabled = answer.input.orientation !== "known";
  element("units").textContent = where === "server" ? "0 to 255, as the server scaled the image." : "In the file's own units.";
  scale(image.channels === 3 ? 1 : 0);
  takeLayers();
}

/** Ends and steps of the sliders for a channel, and its usual window. */
function scale(channel: number): void {
  const { image, window } = state.shown!.result;
  const { values } = channelOf(image, channel);
  let [least, most] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < least) least = value;
    if (value > most) most = value;
  }
  const range = most - least || 1;
  step = values instanceof Float32Array ? 10 ** Math.floor(Math.log10(range / 200)) : 1;
  const [low, high] = values instanceof Uint8Array ? [0, 255] : [window.low[channel]!, window.high[channel]!];
  full = { centre: (low + high) / 2, width: Math.max(step, high - low) };
  const ends = values instanceof Uint8Array ? [0, 255] : [least, most];
  const set = (id: string, min: number, max: number) => Object.assign(input(id), { min: String(min), max: String(max), step: "any" });
  set("centre", ends[0]!, ends[1]!);
  set("width", step, values instanceof Uint8Array ? 255 : range);
  setWindow(full.centre, full.width);
}

function takeChannel(index: number): void {
  void state.viewer?.channel(index).then(() => scale(index));
}

function setWindow(centre: number, width: number): void {
  const set = (id: string, value: number) => {
    const { min, max } = input(id);
    const rounded = Math.round(value / step) * step;
    input(id).value = String(Math.min(Number(max), Math.max(Number(min), rounded)));
  };
  set("centre", centre);
  set("width", width);
  takeWindow();
}

function takeWindow(): void {
  const [centre, width] = [Number(input("centre").value), Number(input("width").value)];
  element("centre-value").textContent = digits(centre);
  element("width-value").textContent = digits(width);
  element("corner-window").textContent = `W ${digits(width)}  L ${digits(centre)}`;
  const exact = centre === Math.round(full.centre / step) * step && width === Math.round(full.width / step) * step;
  const [middle, wide] = exact ? [full.centre, full.width] : [centre, width];
  state.viewer?.window(middle - wide / 2, middle + wide / 2);
}

function takeLayers(): void {
  const fill = checked("fill") as Fill;
  element("opacity-value").textContent = `${input("opacity").value} %`;
  show("legend", fill === "probability" || fill === "apart");
  element("legend").classList.toggle("apart", fill === "apart");
  element("legend-words").textContent = fill === "apart" ? "apart in the mirror image" : "probability of tumour";
  element("legend-end").textContent = percent(fill === "apart" ? 0.5 : 1);
  takeSides();
  const { viewer } = state;
  if (!viewer) return;
  viewer.fill = fill;
  viewer.opacity = Number(input("opacity").value) / 100;
  viewer.outlined = input("outline").checked;
  viewer.overlay();
}

const LETTERS: Record<string, [radiological: string, neurological: string]> = {
  axial: ["RLAP", "LRAP"], coronal: ["RLSI", "LRSI"], sagittal: ["APSI", "APSI"], planes: ["    ", "    "], solid: ["    ", "    "],
}; // prettier-ignore

/** The letters are written for known orientation alone; a lone picture says nothing of sides. */
function takeSides(): void {
  const { shown, viewer } = state;
  if (!shown) return;
  const known = shown.result.answer.input.orientation === "known";
  const radiological = !known || checked("side") === "radiological";
  viewer?.radiological(radiological);
  const row = LETTERS[viewer?.view ?? "axial"]![radiological ? 0 : 1];
  [".left", ".right", ".top", ".bottom"].forEach((place, i) => {
    document.querySelector(`.marks ${place}`)!.textContent = known ? row[i]!.trim() : "";
  });
  element("corner-side").textContent = known ? (radiological ? "Radiological" : "Neurological") : "Orientation unknown";
  element("orientation").textContent = !known
    ? "Orientation unknown: shown as the file has it, sides are not marked."
    : radiological
      ? "The patient's right is on the left of the screen."
      : "The patient's right is on the right of the screen.";
  slices.name();
}

// A bar for each slice, as high as its outlined area; a slider to keyboards and screen readers.

import type { SliceFacts } from "./engines/types";
import { element, measured, number } from "./page";

const SPACE = "http://www.w3.org/2000/svg";

export class Bars {
  private svg = element<SVGSVGElement>("bars");
  private slices: SliceFacts[] = [];

  constructor(private jump: (slice: number) => void) {
    const at = (event: PointerEvent) => {
      const box = this.svg.getBoundingClientRect();
      const place = Math.floor(((event.clientX - box.left) / box.width) * this.slices.length);
      jump(Math.min(this.slices.length, Math.max(1, place + 1)));
    };
    this.svg.addEventListener("pointerdown", (event) => {
      this.svg.setPointerCapture(event.pointerId);
      at(event);
    });
    this.svg.addEventListener("pointermove", (event) => {
      if (event.buttons) at(event);
    });
    this.svg.addEventListener("keydown", (event) => this.pressed(event));
  }

  show(slices: SliceFacts[]): void {
    this.slices = slices;
    const most = Math.max(1, ...slices.map((slice) => slice.pixels));
    this.svg.setAttribute("viewBox", `0 0 ${slices.length} 100`);
    this.svg.setAttribute("aria-valuemin", "1");
    this.svg.setAttribute("aria-valuemax", String(slices.length));
    this.svg.replaceChildren(
      ...slices.flatMap(({ slice, pixels }) => {
        const high = pixels ? Math.max(6, (100 * pixels) / most) : 0;
        return [box("ground", slice, 100), box("area", slice, high)];
      }),
    );
  }

  at(slice: number): void {
    const facts = this.slices[slice - 1];
    this.svg.querySelectorAll(".now").forEach((bar) => bar.classList.remove("now"));
    this.svg.querySelectorAll(`[data-slice="${slice}"]`).forEach((bar) => bar.classList.add("now"));
    this.svg.setAttribute("aria-valuenow", String(slice));
    this.svg.setAttribute("aria-valuetext", facts ? `Slice ${slice} of ${this.slices.length}, ${area(facts)}` : "");
  }

  private pressed(event: KeyboardEvent): void {
    const now = Number(this.svg.getAttribute("aria-valuenow"));
    const wanted = stepped(event.key, now, this.slices.length);
    if (wanted === null) return;
    event.preventDefault();
    this.jump(wanted);
  }
}

/** The slice that a key of movement leads to, down and on to the next; null for any other key. */
export function stepped(key: string, now: number, slices: number): number | null {
  const steps: Record<string, number> = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, PageDown: 5, PageUp: -5 };
  if (key === "Home") return 1;
  if (key === "End") return slices;
  const step = steps[key];
  return step === undefined ? null : Math.min(slices, Math.max(1, now + step));
}

export function area(slice: SliceFacts): string {
  if (!slice.pixels) return "no tumour outlined";
  return slice.area_mm2 === null ? `${number(slice.pixels)} pixels` : `${measured(slice.area_mm2)} mm²`;
}

function box(kind: string, slice: number, high: number): SVGElement {
  const made = document.createElementNS(SPACE, "rect");
  const values = { class: kind, x: slice - 1 + 0.08, y: 100 - high, width: 0.84, height: high, "data-slice": slice };
  for (const [name, value] of Object.entries(values)) made.setAttribute(name, String(value));
  return made;
}

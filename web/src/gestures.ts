// Mouse, touch, wheel and keys on the image, told as what they mean.

export interface Actions {
  scroll(slices: number): void;
  window(width: number, level: number): void; // by pixels dragged, right and up
  move(x: number, y: number): void;
  zoom(factor: number, x?: number, y?: number): void;
  key(name: string): boolean; // whether the key meant something
}

const PIXELS_A_SLICE = 14; // of one finger
const WHEEL_A_SLICE = 40;

export function listen(stage: HTMLElement, actions: Actions): void {
  const fingers = new Map<number, PointerEvent>();
  let rest = 0;

  stage.addEventListener("pointerdown", (event) => {
    if ((event.target as Element).closest("button")) return;
    fingers.set(event.pointerId, event);
    stage.setPointerCapture(event.pointerId);
    rest = 0;
  });
  for (const end of ["pointerup", "pointercancel"] as const) stage.addEventListener(end, (event) => fingers.delete(event.pointerId));
  stage.addEventListener("contextmenu", (event) => event.preventDefault());

  stage.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const [x, y] = [event.clientX - before.clientX, event.clientY - before.clientY];
    const other = [...fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
    fingers.set(event.pointerId, event);
    if (event.pointerType !== "touch") {
      if (event.shiftKey || event.buttons & 6) actions.move(x, y);
      else actions.window(x, -y);
    } else if (other) {
      const far = (a: PointerEvent, b: PointerEvent) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
      const box = stage.getBoundingClientRect();
      actions.move(x / 2, y / 2);
      const [middleX, middleY] = [(event.clientX + other.clientX) / 2 - box.left, (event.clientY + other.clientY) / 2 - box.top];
      actions.zoom(far(event, other) / Math.max(1, far(before, other)), middleX, middleY);
    } else {
      rest = scrolled(rest + y / PIXELS_A_SLICE);
    }
  });

  stage.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const pixels = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? 1 : WHEEL_A_SLICE);
      const box = stage.getBoundingClientRect();
      if (event.ctrlKey) actions.zoom(Math.exp(-pixels / 300), event.clientX - box.left, event.clientY - box.top);
      else if (Math.abs(pixels) >= WHEEL_A_SLICE) actions.scroll(Math.sign(pixels)); // one notch, one slice
      else rest = scrolled(rest + pixels / WHEEL_A_SLICE);
    },
    { passive: false },
  );

  stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== stage) return;
    if (actions.key(event.key)) event.preventDefault();
  });

  /** Scroll whole slices, and keep what is left over. */
  function scrolled(slices: number): number {
    const whole = Math.trunc(slices);
    if (whole) actions.scroll(whole);
    return slices - whole;
  }
}

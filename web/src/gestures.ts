// Mouse, touch and wheel on the picture, told as what they mean. Places are pixels of the stage.

export interface Actions {
  scroll(slices: number): void;
  press(x: number, y: number): boolean; // whether a tool took it
  drag(x: number, y: number, byX: number, byY: number): void;
  tap(x: number, y: number): void; // pressed and released in one place
  release(): void;
  hover(x: number, y: number): void;
  move(byX: number, byY: number): void;
  zoom(factor: number, x?: number, y?: number): void;
  draws(): boolean; // whether one finger draws; else it scrolls
}

const PIXELS_A_SLICE = 14; // of one finger
const WHEEL_A_SLICE = 40;
const STILL = 4; // pixels that a tap may move

export function listen(stage: HTMLElement, actions: Actions): void {
  const fingers = new Map<number, PointerEvent>();
  let rest = 0;
  let moved = 0;
  let used = false; // a tool took the press

  const place = (event: MouseEvent): [number, number] => {
    const box = stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  stage.addEventListener("pointerdown", (event) => {
    if ((event.target as Element).closest("button")) return;
    fingers.set(event.pointerId, event);
    stage.setPointerCapture(event.pointerId);
    rest = moved = 0;
    used = fingers.size === 1 && event.button === 0 && !event.shiftKey && actions.press(...place(event));
  });

  for (const end of ["pointerup", "pointercancel"] as const) {
    stage.addEventListener(end, (event) => {
      if (!fingers.delete(event.pointerId)) return;
      if (used) actions.release();
      else if (end === "pointerup" && moved < STILL && event.button === 0 && !event.shiftKey) actions.tap(...place(event));
      used = false;
    });
  }
  stage.addEventListener("contextmenu", (event) => event.preventDefault());
  stage.addEventListener("pointerleave", () => actions.hover(-1, -1));

  stage.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (event.pointerType !== "touch") actions.hover(...place(event));
    if (!before) return;
    const [x, y] = [event.clientX - before.clientX, event.clientY - before.clientY];
    moved += Math.hypot(x, y);
    const other = [...fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
    fingers.set(event.pointerId, event);
    if (other) pinch(event, before, other, x, y);
    else if (event.pointerType !== "touch" && !used && (event.shiftKey || event.buttons & 6)) actions.move(x, y);
    else if (event.pointerType !== "touch" || used || actions.draws()) actions.drag(...place(event), x, y);
    else rest = scrolled(rest + y / PIXELS_A_SLICE);
  });

  stage.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const pixels = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? 1 : WHEEL_A_SLICE);
      if (event.ctrlKey) actions.zoom(Math.exp(-pixels / 300), ...place(event));
      else if (Math.abs(pixels) >= WHEEL_A_SLICE) actions.scroll(Math.sign(pixels)); // one notch, one slice
      else rest = scrolled(rest + pixels / WHEEL_A_SLICE);
    },
    { passive: false },
  );

  function pinch(event: PointerEvent, before: PointerEvent, other: PointerEvent, x: number, y: number): void {
    const far = (a: PointerEvent, b: PointerEvent) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    const box = stage.getBoundingClientRect();
    actions.move(x / 2, y / 2);
    const [middleX, middleY] = [(event.clientX + other.clientX) / 2 - box.left, (event.clientY + other.clientY) / 2 - box.top];
    actions.zoom(far(event, other) / Math.max(1, far(before, other)), middleX, middleY);
  }

  /** Scroll whole slices, and keep what is left over. */
  function scrolled(slices: number): number {
    const whole = Math.trunc(slices);
    if (whole) actions.scroll(whole);
    return slices - whole;
  }
}

// The image: NiiVue draws slice and overlay, a canvas above it the outline and a scale. It takes no events itself.

import { NVImage, Niivue, SLICE_TYPE } from "@niivue/niivue";

import * as nifti from "./nifti";
import { outline } from "./outline";

export type Fill = "mask" | "probability" | "none";

export const TUMOUR = [255, 92, 51] as const;
const FIT = 0.93; // leaves room for the letters beside the head
const SHOWN_FROM = 13; // of 255: a probability of 5 %
const RAMP = { R: [59, 33, 253, 253], G: [15, 145, 174, 231], B: [112, 140, 97, 37], A: [0, 150, 220, 255], I: [0, 90, 180, 255] };

/** Place of a slice on the canvas: x = left + column * dx, y = top + row * dy, in pixels of the canvas, column and row in RAS order. */
interface Place {
  left: number;
  top: number;
  dx: number;
  dy: number;
}

export class Viewer {
  private nv: Niivue;
  private image: nifti.Volume | null = null;
  private mask: nifti.Volume | null = null;
  private loaded: NVImage[] = []; // image, mask, probability
  private chosen = 1; // the channel that is wanted
  private pending = 0;
  private lines = new Map<number, Float32Array>();
  private drawn: CanvasRenderingContext2D;
  slice = 1;
  slices = 0;
  fill: Fill = "mask";
  opacity = 0.4;
  outlined = true;
  spaced = false;

  private constructor(
    nv: Niivue,
    private canvas: HTMLCanvasElement,
    private over: HTMLCanvasElement,
  ) {
    this.nv = nv;
    this.drawn = over.getContext("2d")!;
  }

  /** Throws where the browser has no WebGL 2. */
  static async attach(canvas: HTMLCanvasElement, over: HTMLCanvasElement): Promise<Viewer> {
    const nv = new Niivue({
      backColor: [0, 0, 0, 1],
      show3Dcrosshair: false,
      crosshairWidth: 0,
      isColorbar: false,
      isOrientationTextVisible: false,
      isRadiologicalConvention: true,
      dragAndDropEnabled: false,
      interactive: false,
      loadingText: "",
      logLevel: "silent",
      sliceType: SLICE_TYPE.AXIAL,
    });
    await nv.attachToCanvas(canvas, true);
    nv.addColormap("tumour", { R: [0, TUMOUR[0]], G: [0, TUMOUR[1]], B: [0, TUMOUR[2]], A: [0, 255], I: [0, 255] });
    nv.addColormap("chance", RAMP);
    const viewer = new Viewer(nv, canvas, over);
    new ResizeObserver(() => viewer.resized()).observe(canvas.parentElement!);
    return viewer;
  }

  /** Show another answer; `wanted` is asked after the last wait whether it is still the one to be shown. */
  async show(image: nifti.Volume, mask: nifti.Volume, probability: nifti.Volume, wanted: () => boolean): Promise<boolean> {
    const most = this.nv.uiData.max3D ?? 2048;
    if (Math.max(...image.shape) > most) throw new Error(`this computer's graphics show at most ${most} pixels a side`);
    const scaled = { ...mask, voxels: mask.voxels.map((value) => (value ? 255 : 0)) };
    const loaded = await Promise.all([
      load(nifti.channel(image, image.channels === 3 ? 1 : 0), "image.nii", "gray", 1, 0, 255),
      load(scaled, "mask.nii", "tumour", this.opacity, 0, 255),
      load(probability, "probability.nii", "chance", 0, SHOWN_FROM, 255),
    ]);
    if (!wanted()) return false;
    this.clear();
    this.image = image;
    this.mask = mask;
    this.slices = mask.shape[2];
    for (const volume of loaded) {
      if (volume.permRAS!.map(Math.abs).join() !== "1,2,3") throw new Error("the answer is not axial");
      volume.colorbarVisible = false;
    }
    this.loaded = loaded;
    this.apply();
    this.nv.resizeListener(); // the stage was hidden until now
    this.go(1);
    this.fit();
    return true;
  }

  clear(): void {
    this.image = this.mask = null;
    this.loaded = [];
    this.slices = 0;
    this.lines.clear();
    this.nv.setPan2Dxyzmm([0, 0, 0, 1]);
    this.apply();
  }

  /** Slices count from 1 in the order of the answer, which may run against the head-foot axis. */
  go(slice: number): void {
    if (!this.mask) return;
    this.slice = Math.min(this.slices, Math.max(1, Math.round(slice)));
    const index = this.turned(2) ? this.slices - this.slice : this.slice - 1;
    this.nv.scene.crosshairPos = [0.5, 0.5, (index + 0.5) / this.slices];
    this.draw();
  }

  /** Show one of the three channels: pre-contrast, FLAIR, post-contrast. */
  async channel(index: number): Promise<void> {
    const image = this.image;
    const before = this.loaded[0];
    if (!image || !before) return;
    this.chosen = index;
    const after = await load(nifti.channel(image, index), "image.nii", "gray", 1, before.cal_min!, before.cal_max!);
    if (image !== this.image || index !== this.chosen) return; // another file or channel was chosen meanwhile
    [after.cal_min, after.cal_max] = [before.cal_min, before.cal_max]; // as the window is by now
    this.loaded[0] = after;
    this.overlay();
  }

  window(centre: number, width: number): void {
    const volume = this.loaded[0];
    if (!volume) return;
    volume.cal_min = centre - width / 2;
    volume.cal_max = centre + width / 2;
    this.overlay();
  }

  /** Take over window, fill, opacity and outline as they are then, once a frame however often it is asked for. */
  overlay(): void {
    this.pending ||= requestAnimationFrame(() => this.apply());
  }

  radiological(on: boolean): void {
    this.nv.opts.isRadiologicalConvention = on;
    this.draw();
  }

  /** Zoom by a factor about a point of the canvas, its middle if left out. */
  zoom(factor: number, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2): void {
    const place = this.place();
    if (!place) return;
    const [panX, panY, panZ, zoom] = this.pan();
    const wanted = Math.min(12, Math.max(FIT, zoom * factor));
    const ratio = this.ratio();
    const [mmX, mmY] = this.millimetres((x * ratio - place.left) / place.dx, (y * ratio - place.top) / place.dy);
    // On the screen a point lies where its millimetres times the zoom plus the pan say: keep that the same for this point.
    this.nv.setPan2Dxyzmm([panX + mmX * (zoom - wanted), panY + mmY * (zoom - wanted), panZ, wanted]);
    this.draw();
  }

  /** Move the image by pixels of the page. */
  move(x: number, y: number): void {
    const place = this.place();
    if (!place) return;
    const [panX, panY, panZ, zoom] = this.pan();
    const [x0, y0] = this.millimetres(0, 0);
    const [x1, y1] = this.millimetres(1, 1);
    const ratio = this.ratio();
    this.nv.setPan2Dxyzmm([panX + ((x1 - x0) / place.dx) * x * ratio * zoom, panY + ((y1 - y0) / place.dy) * y * ratio * zoom, panZ, zoom]);
    this.draw();
  }

  fit(): void {
    this.nv.setPan2Dxyzmm([0, 0, 0, 1]);
    this.zoom(FIT);
  }

  /** What is seen, with the `sides` (left, right, above, below) in it and `lines` of text below, as a canvas. */
  picture(sides: string[], lines: string[]): HTMLCanvasElement {
    this.apply();
    const { width, height } = this.canvas;
    const size = Math.max(13, Math.round(width / 50));
    const result = document.createElement("canvas");
    result.width = width;
    result.height = height + Math.round(size * (0.8 + 1.5 * lines.length));
    const paint = result.getContext("2d")!;
    paint.fillStyle = "#000";
    paint.fillRect(0, 0, result.width, result.height);
    paint.drawImage(this.canvas, 0, 0);
    paint.drawImage(this.over, 0, 0);
    paint.fillStyle = "#e6e9ec";
    paint.font = `${size}px system-ui, sans-serif`;
    const [left = "", right = "", above = "", below = ""] = sides;
    paint.textAlign = "center";
    for (const [letter, x, y] of [[left, size, height / 2], [right, width - size, height / 2]] as const) paint.fillText(letter, x, y);
    for (const [letter, y] of [[above, size * 1.4], [below, height - size * 0.6]] as const) paint.fillText(letter, width / 2, y);
    paint.textAlign = "left";
    lines.forEach((line, i) => paint.fillText(line, size, height + size * 1.5 * (i + 1), width - 2 * size));
    return result;
  }

  /** Give NiiVue the layers that are seen, in one go: each goes to the graphics memory anew. */
  private apply(): void {
    cancelAnimationFrame(this.pending);
    this.pending = 0;
    const [image, mask, probability] = this.loaded;
    const over = this.fill === "mask" ? mask : this.fill === "probability" ? probability : undefined;
    if (over) over.opacity = this.opacity;
    this.nv.volumes = image ? (over ? [image, over] : [image]) : [];
    this.nv.back = image ?? null;
    this.nv.overlays = over ? [over] : [];
    if (image) this.nv.updateGLVolume();
    this.draw();
  }

  /** Whether NiiVue, which puts voxels in RAS order, turned this axis. */
  private turned(axis: 0 | 1 | 2): boolean {
    return this.loaded[0]!.permRAS![axis]! < 0;
  }

  private pan(): [number, number, number, number] {
    const [x = 0, y = 0, z = 0, zoom = 1] = this.nv.scene.pan2Dxyzmm;
    return [x, y, z, zoom];
  }

  private ratio(): number {
    return this.canvas.width / this.canvas.clientWidth || 1;
  }

  /** Where NiiVue's slices lie in its own flat space. */
  private millimetres(column: number, row: number): [number, number] {
    const [width, height] = this.mask!.shape;
    const found = this.nv.frac2mm([column / width, row / height, this.nv.scene.crosshairPos[2]!]);
    return [found[0]!, found[1]!];
  }

  private place(): Place | null {
    const tile = this.nv.screenSlices[0];
    if (!tile || !this.mask) return null;
    const [left, top, width, height] = tile.leftTopWidthHeight as [number, number, number, number];
    const across = (mm: number) => left + ((mm - tile.leftTopMM[0]!) / tile.fovMM[0]!) * width;
    const down = (mm: number) => top + height - ((mm - tile.leftTopMM[1]!) / tile.fovMM[1]!) * height;
    const [x0, y0] = this.millimetres(0, 0);
    const [x1, y1] = this.millimetres(1, 1);
    return { left: across(x0), top: down(y0), dx: across(x1) - across(x0), dy: down(y1) - down(y0) };
  }

  private resized(): void {
    this.nv.resizeListener();
    this.draw();
  }

  private draw(): void {
    this.nv.drawScene();
    this.over.width = this.canvas.width;
    this.over.height = this.canvas.height;
    const place = this.place();
    if (!place) return;
    if (this.outlined) this.drawOutline(place);
    if (this.spaced) this.drawScale(place);
  }

  private drawOutline(place: Place): void {
    const [width, height] = this.mask!.shape;
    const lines = this.segments(width, height);
    const x = (column: number) => place.left + (this.turned(0) ? width - column : column) * place.dx;
    const y = (row: number) => place.top + (this.turned(1) ? height - row : row) * place.dy;
    const paint = this.drawn;
    paint.beginPath();
    for (let i = 0; i < lines.length; i += 4) {
      paint.moveTo(x(lines[i]!), y(lines[i + 1]!));
      paint.lineTo(x(lines[i + 2]!), y(lines[i + 3]!));
    }
    paint.lineCap = "round";
    for (const [style, thick] of [["rgb(0 0 0 / 0.45)", 3.5], [`rgb(${TUMOUR.join(" ")})`, 2]] as const) {
      paint.strokeStyle = style;
      paint.lineWidth = thick * this.ratio();
      paint.stroke();
    }
  }

  private segments(width: number, height: number): Float32Array {
    const known = this.lines.get(this.slice);
    if (known) return known;
    const first = (this.slice - 1) * width * height;
    const found = outline(this.mask!.voxels.subarray(first, first + width * height), width, height);
    this.lines.set(this.slice, found);
    return found;
  }

  /** A line of 1, 2 or 5 cm beside the lower edge. */
  private drawScale(place: Place): void {
    const ratio = this.ratio();
    const [x0] = this.millimetres(0, 0);
    const [x1] = this.millimetres(1, 0);
    const perMillimetre = Math.abs(place.dx / (x1 - x0));
    const length = [50, 20, 10, 5].find((mm) => mm * perMillimetre < 0.3 * this.over.width);
    if (!length) return;
    const [right, bottom] = [this.over.width - 16 * ratio, this.over.height - 44 * ratio];
    const left = right - length * perMillimetre;
    const paint = this.drawn;
    paint.beginPath();
    for (const [x, y] of [[left, -5], [left, 0], [right, 0], [right, -5]] as const) paint.lineTo(x, bottom + y * ratio);
    paint.strokeStyle = paint.fillStyle = "#c9d1d9";
    paint.lineWidth = 1.5 * ratio;
    paint.stroke();
    paint.font = `${12 * ratio}px system-ui, sans-serif`;
    paint.textAlign = "right";
    paint.fillText(length >= 10 ? `${length / 10} cm` : `${length} mm`, right, bottom - 9 * ratio);
  }
}

function load(volume: nifti.Volume, name: string, colormap: string, opacity: number, low: number, high: number): Promise<NVImage> {
  return NVImage.loadFromUrl({ url: nifti.file(volume), name, colormap, opacity, cal_min: low, cal_max: high });
}

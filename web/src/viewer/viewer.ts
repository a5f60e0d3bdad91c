// The pictures: NiiVue draws image and layers, a canvas above it outlines and lines. It takes no events itself.

import { Niivue, SHOW_RENDER, SLICE_TYPE, type NVImage } from "@niivue/niivue";

import type { Axis } from "../core/editing";
import { channelOf, type Place, type Stack, type Triple } from "../core/voxels";
import { FALSE, FOUND, MISSED, REFERENCE, TUMOUR, type Fill, type View } from "./looks";
import { type Line, Outlines, strokeBrush, strokeLine, strokeOutline, strokeScale } from "./overlay";
import { picture } from "./picture";
import { findTiles, locate, type Tile } from "./tiles";
import { load, reversed } from "./volumes";

const LABELS = [TUMOUR, FOUND, FALSE, MISSED]; // of what is drawn, from 1

const FIT = 0.93; // leaves room for the letters beside the head
const SHOWN_FROM = 13; // of 255: a probability of 5 %
const RAMP = { R: [59, 33, 253, 253], G: [15, 145, 174, 231], B: [112, 140, 97, 37], A: [0, 150, 220, 255], I: [0, 90, 180, 255] };
const APART = { R: [70, 200, 255], G: [0, 60, 240], B: [120, 60, 190], A: [0, 190, 255], I: [0, 120, 255] };
const MOST_APART = 128; // 255ths: passes that are one half apart

const TYPES: Record<View, SLICE_TYPE> = {
  axial: SLICE_TYPE.AXIAL,
  coronal: SLICE_TYPE.CORONAL,
  sagittal: SLICE_TYPE.SAGITTAL,
  planes: SLICE_TYPE.MULTIPLANAR,
  solid: SLICE_TYPE.RENDER,
};

/** What is shown. Masks and probabilities (255ths) lie on the image's grid. */
export interface Scene {
  image: Stack;
  place: Place | null;
  mask: Uint8Array;
  probability: Uint8Array;
  apart: Uint8Array | null;
}

export class Viewer {
  private scene: Scene | null = null;
  private reference: Uint8Array | null = null;
  private base: NVImage | null = null;
  private layers: Partial<Record<Fill, NVImage>> = {};
  private lines: Outlines | null = null;
  private referenceLines: Outlines | null = null;
  private tiles: Tile[] = [];
  private chosen = 1; // the channel that is wanted
  private pending = 0;
  private readonly paint: CanvasRenderingContext2D;
  view: View = "axial";
  cursor: Triple = [0, 0, 0]; // slice, row, column
  fill: Fill = "mask";
  opacity = 0.4;
  outlined = true;
  measured: Line | null = null;
  measuredWords = "";
  brush: { tile: Tile; at: [number, number]; radii: [number, number] } | null = null;

  private constructor(
    private readonly nv: Niivue,
    readonly canvas: HTMLCanvasElement,
    private readonly over: HTMLCanvasElement,
  ) {
    this.paint = over.getContext("2d")!;
  }

  /** Throws where the browser has no WebGL 2. */
  static async attach(canvas: HTMLCanvasElement, over: HTMLCanvasElement): Promise<Viewer> {
    const nv = new Niivue({
      backColor: [0, 0, 0, 1], show3Dcrosshair: true, crosshairWidth: 0, crosshairColor: [1, 0.83, 0.47, 0.8], isColorbar: false,
      isOrientationTextVisible: false, isRadiologicalConvention: true, sagittalNoseLeft: true, dragAndDropEnabled: false, interactive: false,
      loadingText: "", logLevel: "silent", sliceType: SLICE_TYPE.AXIAL, multiplanarShowRender: SHOW_RENDER.ALWAYS,
      isOrientCube: false, multiplanarPadPixels: 4,
    }); // prettier-ignore
    await nv.attachToCanvas(canvas, true);
    nv.setRenderAzimuthElevation(150, 25);
    nv.addColormap("chance", RAMP);
    nv.addColormap("apart", APART);
    const viewer = new Viewer(nv, canvas, over);
    new ResizeObserver(() => viewer.resized()).observe(canvas.parentElement!);
    return viewer;
  }

  get shape(): Triple {
    const { slices, height, width } = this.scene!.image;
    return [slices, height, width];
  }

  /** Show another case; `wanted` is asked after the last wait whether it is still the one to be shown. */
  async show(scene: Scene, window: [low: number, high: number], wanted: () => boolean): Promise<boolean> {
    const { image, place, probability, apart } = scene;
    const most = this.nv.uiData.max3D ?? 2048;
    if (Math.max(image.width, image.height, image.slices) > most) throw new Error(`this computer's graphics show at most ${most} pixels a side`);
    this.chosen = image.channels === 3 ? 1 : 0;
    const layer = (values: Uint8Array) => ({ ...image, values, channels: 1 });
    const [base, chance, distance] = await Promise.all([
      load(channelOf(image, this.chosen), place, { name: "image", colormap: "gray", opacity: 1, low: window[0], high: window[1] }),
      load(layer(probability), place, { name: "probability", colormap: "chance", opacity: 0, low: SHOWN_FROM, high: 255 }),
      apart && load(layer(apart), place, { name: "apart", colormap: "apart", opacity: 0, low: SHOWN_FROM, high: MOST_APART }),
    ]);
    if (!wanted()) return false;
    this.clear();
    this.scene = scene;
    this.base = base;
    this.layers = { probability: chance, ...(distance && { apart: distance }) };
    this.lines = new Outlines(scene.mask, this.shape);
    this.apply();
    this.nv.createEmptyDrawing();
    this.nv.setDrawColormap(drawnColours() as unknown as string);
    this.drawMask();
    this.nv.resizeListener(); // the stage was hidden until now
    this.go([Math.floor(image.slices / 2), Math.floor(image.height / 2), Math.floor(image.width / 2)]);
    this.fit();
    return true;
  }

  clear(): void {
    this.scene = this.base = this.lines = this.reference = this.referenceLines = this.measured = this.brush = null;
    this.layers = {};
    this.tiles = [];
    if (this.nv.drawBitmap) this.nv.closeDrawing();
    this.nv.setPan2Dxyzmm([0, 0, 0, 1]);
    this.apply();
  }

  /** Put the crosshair on a voxel. */
  go(at: Triple): void {
    if (!this.scene) return;
    const shape = this.shape;
    this.cursor = at.map((value, n) => Math.min(shape[n]! - 1, Math.max(0, Math.round(value)))) as Triple;
    const [slice, row, column] = this.cursor.map((value, n) => (value + 0.5) / shape[n]!) as Triple;
    this.nv.scene.crosshairPos = [1 - column, 1 - row, slice] as unknown as typeof this.nv.scene.crosshairPos;
    this.redraw();
  }

  look(view: View): void {
    this.view = view;
    this.nv.opts.crosshairWidth = view === "planes" ? 1 : 0;
    this.nv.setSliceType(TYPES[view]);
    this.fit();
  }

  /** Show one of the three channels: pre-contrast, FLAIR, post-contrast. */
  async channel(index: number): Promise<void> {
    const [scene, before] = [this.scene, this.base];
    if (!scene || !before) return;
    this.chosen = index;
    const after = await load(channelOf(scene.image, index), scene.place, { name: "image", colormap: "gray", opacity: 1, low: before.cal_min!, high: before.cal_max! });
    if (scene !== this.scene || index !== this.chosen) return; // another file or channel was chosen meanwhile
    [after.cal_min, after.cal_max] = [before.cal_min, before.cal_max]; // as the window is by now
    this.base = after;
    this.overlay();
  }

  /** The value of the shown channel at a voxel. */
  valueAt([slice, row, column]: Triple): number {
    const { values, height, width, channels } = this.scene!.image;
    return values[((slice * height + row) * width + column) * channels + (channels === 3 ? this.chosen : 0)]!;
  }

  window(low: number, high: number): void {
    if (!this.base) return;
    [this.base.cal_min, this.base.cal_max] = [low, high];
    this.overlay();
  }

  /** Take over window, fill, opacity and outline as they are then, once a frame however often it is asked for. */
  overlay(): void {
    this.pending ||= requestAnimationFrame(() => this.apply());
  }

  compare(reference: Uint8Array | null): void {
    this.reference = reference;
    this.referenceLines = reference && new Outlines(reference, this.shape);
    this.drawMask();
  }

  /** The mask was changed in place. */
  changed(): void {
    this.lines?.forget();
    this.drawMask();
  }

  radiological(on: boolean): void {
    this.nv.opts.isRadiologicalConvention = on;
    this.redraw();
  }

  rotate(x: number, y: number): void {
    const { renderAzimuth, renderElevation } = this.nv.scene;
    this.nv.setRenderAzimuthElevation(renderAzimuth - x / 2, renderElevation + y / 2);
    this.redraw();
  }

  /** The picture and the voxel edges at a point of the page's canvas. */
  at(x: number, y: number): { tile: Tile; a: number; b: number; voxel: Triple } | null {
    const ratio = this.ratio();
    const found = locate(this.tiles, x * ratio, y * ratio);
    if (!found || !this.scene) return null;
    const voxel: Triple = [...this.cursor];
    voxel[found.tile.across] = Math.floor(found.a);
    voxel[found.tile.down] = Math.floor(found.b);
    const outside = voxel.some((value, n) => value < 0 || value >= this.shape[n]!);
    return outside ? null : { ...found, voxel };
  }

  /** Zoom by a factor about a point of the canvas, its middle if left out. */
  zoom(factor: number, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2): void {
    if (this.view === "solid") {
      this.nv.setScale(Math.min(4, Math.max(0.4, this.nv.scene.volScaleMultiplier * factor)));
      return this.redraw();
    }
    const ratio = this.ratio();
    const found = locate(this.tiles, x * ratio, y * ratio) ?? (this.tiles[0] && { tile: this.tiles[0], a: 0, b: 0 });
    if (!found) return;
    const point: Triple = this.cursor.map((value) => value + 0.5) as Triple;
    point[found.tile.across] = found.a;
    point[found.tile.down] = found.b;
    const [pan, zoom] = this.pan();
    const wanted = Math.min(12, Math.max(FIT, zoom * factor));
    const mm = this.millimetres(point);
    // On the screen a point lies where its millimetres times the zoom plus the pan say: keep that the same for this point.
    this.nv.setPan2Dxyzmm([...pan.map((value, n) => value + mm[n]! * (zoom - wanted)), wanted] as [number, number, number, number]);
    this.redraw();
  }

  /** Move the image by pixels of the page. */
  move(x: number, y: number): void {
    const tile = this.tiles[0];
    if (!tile) return;
    const [pan, zoom] = this.pan();
    const ratio = this.ratio();
    const step = (axis: Axis) => {
      const to: Triple = [0, 0, 0];
      to[axis] = 1;
      const [a, b] = [this.millimetres([0, 0, 0]), this.millimetres(to)];
      return b[2 - axis]! - a[2 - axis]!;
    };
    pan[2 - tile.across]! += ((step(tile.across) * x * ratio) / tile.dx) * zoom;
    pan[2 - tile.down]! += ((step(tile.down) * y * ratio) / tile.dy) * zoom;
    this.nv.setPan2Dxyzmm([...pan, zoom] as [number, number, number, number]);
    this.redraw();
  }

  fit(): void {
    this.nv.setPan2Dxyzmm([0, 0, 0, 1]);
    if (this.view === "solid") return this.redraw();
    this.redraw();
    this.zoom(this.view === "planes" ? 1 : FIT);
  }

  /** What is seen, with the `sides` (left, right, above, below) in it and `lines` of text below, as a canvas. */
  picture(sides: string[], lines: string[]): HTMLCanvasElement {
    this.apply();
    return picture([this.canvas, this.over], sides, lines);
  }

  redraw(): void {
    this.nv.drawScene();
    this.over.width = this.canvas.width;
    this.over.height = this.canvas.height;
    if (!this.scene) return;
    this.tiles = findTiles(this.nv, this.shape);
    const ratio = this.ratio();
    for (const tile of this.tiles) this.drawTile(tile, ratio);
    if (this.scene.place && this.tiles.length === 1) strokeScale(this.paint, this.perMillimetre(this.tiles[0]!), ratio);
  }

  private drawTile(tile: Tile, ratio: number): void {
    const plane = { axis: tile.axis, slice: this.cursor[tile.axis] };
    if (this.outlined && this.referenceLines) strokeOutline(this.paint, tile, this.referenceLines.in(plane), REFERENCE, ratio);
    if (this.outlined) strokeOutline(this.paint, tile, this.lines!.in(plane), TUMOUR, ratio);
    const line = this.measured;
    if (line && line.tile.axis === tile.axis && line.slice === plane.slice) strokeLine(this.paint, tile, line, this.measuredWords, ratio);
    if (this.brush?.tile.axis === tile.axis) strokeBrush(this.paint, tile, this.brush.at, this.brush.radii, ratio);
  }

  /** Give NiiVue the layers that are seen, in one go: each goes to the graphics memory again. */
  private apply(): void {
    cancelAnimationFrame(this.pending);
    this.pending = 0;
    const over = this.layers[this.fill];
    if (over) over.opacity = this.opacity;
    this.nv.volumes = this.base ? (over ? [this.base, over] : [this.base]) : [];
    this.nv.back = this.base;
    this.nv.overlays = over ? [over] : [];
    if (this.base) this.nv.updateGLVolume();
    this.drawMask();
  }

  /** The mask as NiiVue's drawing, which is changed voxel by voxel: the outline's inside, or what is found, false and missed. */
  private drawMask(): void {
    const bitmap = this.nv.drawBitmap;
    if (bitmap && this.scene && this.fill !== "probability" && this.fill !== "apart") {
      const area = this.shape[1] * this.shape[2];
      bitmap.set(reversed(this.labels(), area));
      this.nv.refreshDrawing(false);
    }
    this.nv.drawOpacity = this.fill === "mask" || this.fill === "compare" ? this.opacity : 0;
    this.redraw();
  }

  private labels(): Uint8Array {
    const { mask } = this.scene!;
    const { reference } = this;
    if (this.fill !== "compare" || !reference) return mask;
    return mask.map((value, at) => (value ? (reference[at] ? 2 : 3) : reference[at] ? 4 : 0));
  }

  private pan(): [Triple, number] {
    const [x = 0, y = 0, z = 0, zoom = 1] = this.nv.scene.pan2Dxyzmm;
    return [[x, y, z], zoom];
  }

  private ratio(): number {
    return this.canvas.width / this.canvas.clientWidth || 1;
  }

  /** Where voxel edges lie in NiiVue's own flat space: x, y, z. */
  private millimetres([slice, row, column]: Triple): Triple {
    const shape = this.shape;
    const found = this.nv.frac2mm([1 - column / shape[2], 1 - row / shape[1], slice / shape[0]] as unknown as Parameters<Niivue["frac2mm"]>[0]);
    return [found[0]!, found[1]!, found[2]!];
  }

  private perMillimetre(tile: Tile): number {
    const [row, column, slice] = this.scene!.place!.spacing;
    return Math.abs(tile.dx) / { 0: slice, 1: row, 2: column }[tile.across];
  }

  private resized(): void {
    this.nv.resizeListener();
    this.redraw();
  }
}

function drawnColours(): object {
  const channel = (n: 0 | 1 | 2) => [0, ...LABELS.map((colour) => colour[n])];
  return { R: channel(0), G: channel(1), B: channel(2), A: [0, ...LABELS.map(() => 255)], labels: ["", "tumour", "found", "false", "missed"] };
}

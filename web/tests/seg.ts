// Writes masks of DICOM series as DICOM SEG in Node, for a test in Python to compare with Python's own.
// node seg.mjs FOLDER: reads FOLDER/asked.json and the masks named there, writes ID.dcm beside them, or ID.txt with why not.

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { readSeries } from "../src/core/dicom";
import { type Outline } from "../src/core/dicomSeg";
import { Desk } from "../src/core/desk";

const folder = process.argv[2]!;
const asked = JSON.parse(readFileSync(join(folder, "asked.json"), "utf-8")) as { id: string; series: string; mask: string; outline: Outline }[];
for (const { id, series, mask, outline } of asked) {
  const names = readdirSync(join(folder, series));
  const read = await readSeries(names.map((name) => ({ name, bytes: new Uint8Array(readFileSync(join(folder, series, name))) })));
  if (!read.origin) {
    writeFileSync(join(folder, `${id}.txt`), read.noSeg);
    continue;
  }
  const desk = new Desk();
  const given = { ...read, name: id, kind: "dicom" as const, numbers: [], channels: [] };
  desk.shown = { given, levels: new Uint8Array(0), slices: [] };
  writeFileSync(join(folder, `${id}.dcm`), await desk.seg(new Uint8Array(readFileSync(join(folder, mask))), outline));
}

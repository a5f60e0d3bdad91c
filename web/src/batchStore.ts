// The list of many cases, kept in this browser alone, so that it goes on after a reload.

import { openDB, type DBSchema, type IDBPDatabase } from "idb";

import type { Item } from "./core/discover";
import type { Summary } from "./core/measure";

export interface Row extends Omit<Summary, "tumour_pixels"> {
  kind: string;
  slices: number;
  dice: number | null; // against a mask that lay beside the scan
}

export interface Entry {
  id: number;
  name: string;
  items: Item[]; // files of the case, and masks beside them
  state: "waiting" | "done" | "refused";
  told: string; // warnings, or why it was refused
  row?: Row;
  model?: string; // digest of the weights
  mask?: Uint8Array; // .nii.gz
  seg?: Uint8Array; // .dcm, of a DICOM series with a tumour
  picture?: string; // data URL
}

interface Schema extends DBSchema {
  entries: { key: number; value: Entry };
}

/** Kept in memory where the browser keeps nothing. */
export class Store {
  private constructor(private readonly database: IDBPDatabase<Schema> | null) {}

  static async open(): Promise<Store> {
    const database = await openDB<Schema>("brainseg", 1, { upgrade: (made) => void made.createObjectStore("entries", { keyPath: "id" }) }).catch(() => null);
    return new Store(database);
  }

  async all(): Promise<Entry[]> {
    return (await this.database?.getAll("entries")) ?? [];
  }

  async put(entry: Entry): Promise<void> {
    await this.database?.put("entries", entry).catch((error: unknown) => console.warn("not kept:", error)); // a full disk
  }

  async forget(): Promise<void> {
    await this.database?.clear("entries");
  }
}

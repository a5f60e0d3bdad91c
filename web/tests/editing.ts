// Strokes, steps and moved thresholds on a small mask, for a test to look at: prints what is there after each.

import { MaskEditor } from "../src/core/editing";

const size = { slices: 3, height: 7, width: 8 };
const mask = new Uint8Array(3 * 7 * 8);
const editor = new MaskEditor<string>(mask, size, "first");
const told: Record<string, unknown> = {};
const tell = (name: string) => (told[name] = { mask: [...mask], edited: editor.edited, undo: editor.canUndo, redo: editor.canRedo });

editor.paint([1, 3, 3], 0, [1, 1, 1], 1);
editor.paint([1, 3, 4], 0, [1, 1, 1], 1);
editor.commit();
tell("stroke");
editor.paint([1, 3, 3], 0, [1, 1, 1], 0);
editor.commit();
tell("erased");
told.undone = editor.undo();
tell("back");
told.redone = editor.redo();
tell("forth");
editor.undo();
editor.undo();
tell("begin");
const ring = new Uint8Array(mask.length);
for (const [y, x] of [[1, 2], [1, 3], [1, 4], [2, 1], [2, 5], [3, 2], [3, 3], [3, 4]]) ring[56 + y! * 8 + x!] = 1;
editor.replace(new Uint8Array(mask.length).fill(1), "half");
editor.replace(ring, "second");
tell("ruled");
told.open = editor.fill([1, 5, 5], 0);
told.closed = editor.fill([1, 2, 3], 0);
editor.commit();
tell("filled");
editor.undo();
told.rule = editor.undo();
tell("unruled");
told.again = editor.redo();
tell("reruled");
editor.paint([1, 3, 3], 1, [1, 1, 2], 1);
editor.commit();
tell("coronal");
console.log(JSON.stringify(told));

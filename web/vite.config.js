import { fileURLToPath } from "node:url";

import { defaultClientConditions, defineConfig } from "vite";

// Relative addresses, so that the page also works below a path; nothing inline, so that a strict content security policy holds.
// `--mode site` builds the page without a server behind it.
export default defineConfig({
  base: "./",
  resolve: {
    alias: [{ find: /^(numcodecs\/.*|fs|path)$/, replacement: fileURLToPath(new URL("src/nothing.ts", import.meta.url)) }], // codecs of Zarr, 1.4 MB never used; and what Node alone has
    conditions: ["onnxruntime-web-use-extern-wasm", ...defaultClientConditions], // the runtime's files are ours to place
  },
  worker: { format: "es" },
  build: {
    outDir: "../src/brainseg/server/page",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 4000, // NiiVue is one piece
    license: { fileName: "licences.md" },
  },
});

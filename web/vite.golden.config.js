import { defineConfig } from "vite";

// What tests/golden.ts, tests/editing.ts and tests/seg.ts are made into, to run in Node: all but ONNX Runtime, which finds its own files beside itself.
export default defineConfig({
  build: { ssr: true, rolldownOptions: { input: ["tests/golden.ts", "tests/editing.ts", "tests/seg.ts"] }, outDir: ".golden", emptyOutDir: true, target: "es2022", minify: false },
  ssr: { noExternal: true, external: ["onnxruntime-web"] },
  logLevel: "warn",
});

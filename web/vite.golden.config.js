import { defineConfig } from "vite";

// What tests/golden.ts is made into, to run in Node: all but ONNX Runtime, which finds its own files beside itself.
export default defineConfig({
  build: { ssr: "tests/golden.ts", outDir: ".golden", emptyOutDir: true, target: "es2022", minify: false },
  ssr: { noExternal: true, external: ["onnxruntime-web"] },
  logLevel: "warn",
});

import { mergeConfig } from "vite";

import page from "./vite.config.js";

// tests/raw.html, made as the page is.
export default mergeConfig(page, { build: { outDir: ".raw", rolldownOptions: { input: "tests/raw.html" } } });

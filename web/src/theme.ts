// Dark or light: what the system prefers until the person says otherwise; that is remembered in this browser alone.

import { element } from "./page";

const KEY = "brainseg-theme";

export function start(): void {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const button = element("theme");
  const current = () => document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light");
  const name = () => button.setAttribute("aria-label", `Switch to the ${current() === "dark" ? "light" : "dark"} theme`);
  const kept = remembered();
  if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
  name();
  system.addEventListener("change", name);
  button.addEventListener("click", () => {
    const wanted = current() === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = wanted;
    try {
      localStorage.setItem(KEY, wanted);
    } catch {
      // a browser that keeps nothing
    }
    name();
  });
}

function remembered(): string | null {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

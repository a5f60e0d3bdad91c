// Elements of the page by their id, and small ways to fill them. What people or files say is always text, never markup.

export function element<T extends Element = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no element ${id}`);
  return found as Element as T;
}

export function input(id: string): HTMLInputElement {
  return element<HTMLInputElement>(id);
}

export function checked(name: string): string {
  return document.querySelector<HTMLInputElement>(`input[name=${name}]:checked`)!.value;
}

/** Choose a radio button, as a click on it does. */
export function choose(name: string, value: string): void {
  document.querySelector<HTMLInputElement>(`input[name=${name}][value=${value}]`)!.click();
}

export function click(id: string, act: () => void): void {
  element(id).addEventListener("click", act);
}

export function focus(id: string): void {
  element(id).focus({ preventScroll: true });
}

export function show(id: string, shown: boolean): void {
  element(id).toggleAttribute("hidden", !shown);
}

export function words(tag: string, text: string, kind = ""): HTMLElement {
  const made = document.createElement(tag);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

/** Rows of a definition list: [name, value, what stands small beside it]. */
export function list(id: string, rows: [string, string, string?][]): void {
  element(id).replaceChildren(
    ...rows.flatMap(([name, value, detail]) => {
      const entry = words("dd", value);
      if (detail) entry.append(" ", words("small", detail));
      return [words("dt", name), entry];
    }),
  );
}

export function announce(text: string): void {
  element("live").textContent = text;
}

export function number(value: number, digits = 0): string {
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** An area or a volume with three digits that mean something. */
export function measured(value: number): string {
  return number(value, value >= 100 ? 0 : value >= 10 ? 1 : 2);
}

export function percent(value: number): string {
  return `${number(100 * value)} %`;
}

/** A number with so many digits that mean something, without zeros at its end. */
export function digits(value: number, count = 4): string {
  return Number(value.toPrecision(count)).toLocaleString("en", { maximumFractionDigits: 6 });
}

/** A name for a file: without its ending and without what some system might not take. */
export function plainName(name: string): string {
  return name.replace(/(\.(nii|hdr|img))?\.[a-z0-9]+$/i, "").replace(/[^\p{L}\p{N}._-]+/gu, "_").slice(0, 80) || "brainseg"; // prettier-ignore
}

/** Save what was made here. */
export function download(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Words of the server, which begin small and end bare, as a sentence; a name at the beginning stays as it is. */
export function sentence(text: string): string {
  const trimmed = text.trim();
  const begun = trimmed.replace(/^\p{Ll}+(?=\s|$)/u, (word) => word.charAt(0).toUpperCase() + word.slice(1));
  return begun + (/[.!?]$/.test(begun) || !begun ? "" : ".");
}

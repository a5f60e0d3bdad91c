// What is seen as one picture to save: the canvases, the letters of the sides, and lines of text below.

export function picture(layers: HTMLCanvasElement[], sides: string[], lines: string[]): HTMLCanvasElement {
  const { width, height } = layers[0]!;
  const size = Math.max(13, Math.round(width / 50));
  const result = document.createElement("canvas");
  result.width = width;
  result.height = height + Math.round(size * (0.8 + 1.5 * lines.length));
  const paint = result.getContext("2d")!;
  paint.fillStyle = "#000";
  paint.fillRect(0, 0, result.width, result.height);
  for (const layer of layers) paint.drawImage(layer, 0, 0);
  paint.fillStyle = "#e6e9ec";
  paint.font = `${size}px system-ui, sans-serif`;
  const [left = "", right = "", above = "", below = ""] = sides;
  paint.textAlign = "center";
  for (const [letter, x, y] of [[left, size, height / 2], [right, width - size, height / 2]] as const) paint.fillText(letter, x, y);
  for (const [letter, y] of [[above, size * 1.4], [below, height - size * 0.6]] as const) paint.fillText(letter, width / 2, y);
  paint.textAlign = "left";
  lines.forEach((line, i) => paint.fillText(line, size, height + size * 1.5 * (i + 1), width - 2 * size));
  return result;
}

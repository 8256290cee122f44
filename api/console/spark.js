// A line of the last minutes. It repeats what the number beside it says, so it is hidden from screen readers.

import { svg } from "./dom.js";

const WIDTH = 90;
const HEIGHT = 22;
const KEEP = 120; // frames

export function spark() {
  const line = svg("polyline", { class: "line" });
  const area = svg("polygon", { class: "area" });
  const node = svg("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true", preserveAspectRatio: "none" }, area, line);
  node.values = [];
  node.add = (value) => {
    node.values.push(value ?? 0);
    if (node.values.length > KEEP) node.values.shift();
    const points = draw(node.values);
    line.setAttribute("points", points);
    area.setAttribute("points", `0,${HEIGHT} ${points} ${WIDTH},${HEIGHT}`);
  };
  return node;
}

function draw(values) {
  const top = Math.max(1, ...values);
  const step = WIDTH / (KEEP - 1);
  const start = WIDTH - (values.length - 1) * step;
  return values.map((value, index) => `${(start + index * step).toFixed(1)},${(HEIGHT - 1 - (value / top) * (HEIGHT - 3)).toFixed(1)}`).join(" ");
}

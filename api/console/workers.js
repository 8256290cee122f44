// Workers, their engines and GPUs, as each said at its last heartbeat.

import { h, mark, say, table } from "./dom.js";
import { bytes, count, rate, share, since } from "./format.js";

export function makeWorkers(place) {
  const shown = table({
    caption: "Workers and engines",
    key: (row) => `${row.worker.name} ${row.model}`,
    empty: ["No worker is alive, so nothing runs. Start one with ", h("code", {}, "penstock worker"), "; ", h("code", {}, "penstock doctor"), " says what is missing."],
    columns: COLUMNS,
  });
  place.append(shown.node);
  return (frame) => shown.show(frame.workers.flatMap((worker) => rows(worker, frame.at)));
}

function rows(worker, at) {
  return Object.entries(worker.models).map(([model, stats]) => ({ worker, model, stats, at }));
}

const COLUMNS = [
  { title: "Worker", heads: true, class: "id", text: ({ worker }) => worker.name },
  { title: "State", text: ({ worker }) => worker.state, hint: ({ worker }) => worker.detail || null, state: ({ worker }) => (worker.state === "ready" ? "good" : "warn") },
  { title: "Model", text: ({ model }) => model },
  { title: "Engine", text: ({ stats }) => (stats.ready === undefined ? "–" : stats.ready ? "ready" : "not ready"), state: ({ stats }) => (stats.ready === false ? "bad" : null) },
  { title: "Slots in use", make: meter, update: (node, { stats }) => node.show(stats.running ?? 0, stats.slots) },
  { title: "In its window", class: "number", text: ({ stats }) => count(stats.window) },
  { title: "Speed", class: "number", text: ({ stats }) => rate(stats.tokens_per_second, "tokens/s") },
  { title: "Cached", class: "number", text: ({ stats }) => share(stats.cached_share) },
  { title: "GPU", text: ({ worker }) => gpus(worker.gpus) },
  { title: "Finished", class: "number", text: ({ stats }) => count(stats.finished) },
  { title: "Up", class: "number", text: ({ worker, at }) => since(worker.started_at, at) },
];

function gpus(all) {
  if (!all.length) return "none";
  return all
    .map((gpu) => [share(gpu.utilization), `${bytes(gpu.memory_used)} of ${bytes(gpu.memory)}`, gpu.temperature && `${gpu.temperature} °C`, gpu.power && `${Math.round(gpu.power)} W`].filter(Boolean).join(", "))
    .join("; ");
}

export function meter() {
  const bar = h("span", { class: "fill" });
  const text = h("span");
  const node = h("span", { class: "meter" }, h("span", { class: "track", "aria-hidden": "true" }, bar), text);
  node.show = (used, all) => {
    bar.style.width = `${all ? Math.min(100, (used / all) * 100) : 0}%`;
    mark(bar, "data-full", all > 0 && used >= all);
    say(text, `${count(used)} / ${count(all)}`);
  };
  return node;
}

// What an operator should know first: each sentence says what is wrong and what to do.

import { h, mark, say, sync } from "./dom.js";
import { brief, count, rate, span } from "./format.js";
import { spark } from "./spark.js";

export function concerns(frame) {
  const found = [];
  const { totals } = frame;
  const add = (tone, text) => found.push({ tone, text });
  if (!totals.workers) add("bad", `No worker is alive${totals.waiting ? ` and ${count(totals.waiting)} jobs wait` : ""}. Start one: penstock worker.`);
  for (const worker of frame.workers) {
    if (worker.state !== "ready" && worker.state !== "draining") add("warn", `${worker.name} is ${worker.state}${worker.detail ? `: ${worker.detail}` : ""}. Its own log has the last lines of its engine.`);
  }
  for (const model of frame.models) {
    if (model.state !== "serving") add("warn", `${model.name} is ${model.state}: nothing of it begins until it is resumed.`);
    if (model.level > 0) add("warn", `${model.name} is at level ${model.level} (${model.level_name}): ${model.reason}.`);
    const shed = model.queues.filter((queue) => queue.is_shed).map((queue) => queue.service_class);
    if (shed.length) add("bad", `${model.name} turns new ${shed.join(" and ")} work away: add workers, or wait until the queue is shorter.`);
  }
  if (totals.dead_letters) add("warn", `${count(totals.dead_letters)} dead ${totals.dead_letters === 1 ? "letter" : "letters"}: look at why, then requeue or discard.`);
  if (totals.leases_overdue) add("warn", `${count(totals.leases_overdue)} leases ran out and were not reaped: is upkeep running?`);
  if (totals.deliveries_late_ms > 60_000) add("warn", `Webhooks are late by ${span(totals.deliveries_late_ms)}: is penstock deliver running?`);
  return found;
}

export function showAttention(place, frame) {
  const found = concerns(frame);
  const items = found.length ? found : [{ tone: "good", text: "All is well: nothing needs you." }];
  sync(place, items, (item) => item.text, (item) => h("li", { "data-state": item.tone }, item.text), () => {});
}

export function showTotals(place, frame) {
  sync(place, tiles(frame), (tile) => tile.name, makeTile, (node, tile) => node.show(tile));
}

function makeTile({ name }) {
  const value = h("span", { class: "value" });
  const more = h("span", { class: "quiet" });
  const line = spark();
  const node = h("div", { class: "card" }, h("dt", {}, name), h("dd", {}, value, more), line);
  node.show = (tile) => {
    say(value, tile.value);
    say(more, tile.more);
    mark(value, "data-state", tile.tone);
    line.add(tile.number);
  };
  return node;
}

function tiles({ totals, models }) {
  const oldest = Math.max(0, ...models.flatMap((model) => model.queues.map((queue) => queue.oldest_wait_ms)));
  const speed = models.reduce((sum, model) => sum + model.tokens_per_second, 0);
  const level = Math.max(0, ...models.map((model) => model.level));
  return [
    { name: "Waiting", value: brief(totals.waiting), more: `${brief(totals.tokens)} tokens`, number: totals.waiting },
    { name: "Running", value: brief(totals.running), more: `of ${brief(totals.slots)} slots`, number: totals.running },
    { name: "Oldest wait", value: totals.waiting ? span(oldest) : "–", more: totals.scheduled ? `${brief(totals.scheduled)} scheduled` : "", number: oldest },
    { name: "Speed", value: rate(speed, ""), more: "tokens/s", number: speed },
    { name: "Level", value: String(level), more: level ? "degraded answers" : "full answers", number: level, tone: level ? "warn" : null },
    { name: "Dead letters", value: brief(totals.dead_letters), more: `${brief(totals.deliveries_open)} webhooks open`, number: totals.dead_letters, tone: totals.dead_letters ? "warn" : null },
  ];
}

// What an operator should know first: each sentence says what is wrong and what to do.

import { h, mark, say, sync } from "./dom.js";
import { brief, rate, span } from "./format.js";
import { spark } from "./spark.js";

export function showAttention(place, { attention }) {
  const items = attention.length ? attention : [{ tone: "good", sentence: "All is well: nothing needs you.", remedy: "" }];
  const make = (item) => h("li", { "data-state": item.tone }, item.sentence, item.remedy && " ", item.remedy && h("em", {}, item.remedy));
  sync(place, items, (item) => `${item.sentence}${item.remedy}`, make, () => {});
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

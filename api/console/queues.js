// Models: their level, why, and what waits in each class; the operator's levers beside it.

import { act } from "./actions.js";
import { h, mark, say, sync, table } from "./dom.js";
import { brief, count, rate, share, since, span } from "./format.js";
import { spark } from "./spark.js";

const LEVELS = ["0 full", "1 truncate", "2 template", "3 similar"];
const TIMES = ["15m", "1h", "8h"];

export function showModels(place, frame) {
  sync(place, frame.models, (model) => model.name, makeModel, (node, model) => node.show(model, frame.at));
}

function makeModel(model) {
  const level = h("span", { class: "pill" });
  const state = h("span", { class: "pill" });
  const reason = h("p", { class: "reason" });
  const facts = h("dl", { class: "facts" });
  const queues = table({ caption: `Queues of ${model.name}`, columns: COLUMNS, key: (queue) => queue.service_class, empty: ["Nothing waits."] });
  const levers = makeLevers(model);
  const node = h(
    "article",
    { class: "card model", "aria-label": `Model ${model.name}` },
    h("div", { class: "heading" }, h("h3", {}, model.name), state, level, reason),
    facts,
    queues.node,
    levers.node,
  );
  node.show = (now, at) => {
    say(level, `Level ${now.level} · ${now.level_name}`);
    mark(level, "data-level", now.level);
    say(state, now.state);
    mark(state, "data-state", now.state === "serving" ? "good" : "warn");
    say(reason, why(now, at));
    showFacts(facts, now);
    queues.show(now.queues);
    levers.show(now);
  };
  return node;
}

function why(model, at) {
  if (model.rule === "unknown") return "Nothing was measured yet: is upkeep running?";
  const reason = model.level === 0 && !model.pinned_until ? "What is asked is what is given" : model.reason || model.rule;
  const pinned = model.pinned_until ? `, for ${span(new Date(model.pinned_until) - new Date(at))} more` : "";
  return `${reason}${pinned}${model.since ? ` · since ${since(model.since, at)}` : ""}`;
}

function showFacts(place, model) {
  const facts = [
    ["Running", `${count(model.running)} of ${count(model.slots)} slots`],
    ["Speed", rate(model.tokens_per_second, "tokens/s")],
    ["First token", model.first_token_ms === null ? "–" : `${span(model.first_token_ms)} on average`],
    ["Cached", share(model.cached_share)],
    ["Workers", count(model.workers)],
  ];
  sync(place, facts, ([name]) => name, ([name]) => h("div", {}, h("dt", {}, name), h("dd")), (node, [, value]) => say(node.lastChild, value));
}

const COLUMNS = [
  { title: "Class", heads: true, text: (queue) => queue.service_class },
  { title: "Waiting", class: "number", text: (queue) => count(queue.waiting) },
  { title: "Last minutes", class: "graph", make: spark, update: (node, queue) => node.add(queue.waiting) },
  { title: "Tokens", class: "number", text: (queue) => brief(queue.tokens) },
  { title: "Released", class: "number", text: (queue) => count(queue.released), hint: () => "With the broker or in a worker's window" },
  { title: "Scheduled", class: "number", text: (queue) => count(queue.scheduled), hint: () => "Not before a time of their own" },
  { title: "Oldest wait", class: "number", text: (queue) => (queue.waiting ? span(queue.oldest_wait_ms) : "–") },
  { title: "Predicted wait", class: "number", text: (queue) => span(queue.predicted_wait_ms) },
  { title: "Rate", class: "number", text: (queue) => rate(queue.jobs_per_second, "jobs/s") },
  { title: "New work", text: (queue) => (queue.is_shed ? "turned away" : "let in"), state: (queue) => (queue.is_shed ? "bad" : null) },
];

function makeLevers({ name }) {
  const level = h("select", { "aria-label": `Level to pin ${name} at` }, ...LEVELS.map((text, index) => h("option", { value: index }, text)));
  const time = h("select", { "aria-label": `How long to pin ${name}` }, ...TIMES.map((text) => h("option", { value: text }, `for ${text}`)));
  const path = encodeURIComponent(name);
  const pin = h("button", { type: "button" }, "Pin level");
  const unpin = h("button", { type: "button" }, "Take pin back");
  const hold = h("button", { type: "button" });
  pin.addEventListener("click", () =>
    act(pin, `${name} stays at level ${level.value} for ${time.value}`, "PUT", `/v1/admin/degradation/${path}`, { level: Number(level.value), expires_in: time.value }),
  );
  unpin.addEventListener("click", () => act(unpin, `The policy decides about ${name} again`, "DELETE", `/v1/admin/degradation/${path}`));
  hold.addEventListener("click", () => act(hold, `${name}: ${hold.dataset.verb} sent`, "POST", `/v1/admin/models/${path}/${hold.dataset.verb}`));
  return {
    node: h("div", { class: "levers" }, level, time, pin, unpin, hold),
    show(model) {
      unpin.hidden = !model.pinned_until;
      hold.dataset.verb = model.state === "serving" ? "pause" : "resume";
      say(hold, model.state === "serving" ? "Pause model" : "Resume model");
    },
  };
}

// A box to try a prompt: submits a job of the signed-in key's tenant and shows its tokens as they come.

import { act } from "./actions.js";
import { call, events } from "./api.js";
import { h, say } from "./dom.js";
import { count, span } from "./format.js";
import { openJob } from "./jobs.js";

// From there on even a job that is over already shows its tokens one by one.
const BEGINNING = "0-0";

export function makeTry(place, session) {
  const field = (label, node) => h("label", {}, h("span", {}, label), node);
  const option = (text) => h("option", { value: text }, text);
  const model = h("select", { name: "model" }, ...session.models.map(option));
  const kind = h("select", { name: "service_class" }, ...["standard", "premium", "bulk"].map(option));
  const most = h("input", { name: "max_tokens", type: "number", min: "1", max: "100000", value: "128", required: true });
  const prompt = h("textarea", { name: "prompt", rows: "3", required: true, placeholder: "Where is my order?" });
  const send = h("button", { class: "primary", type: "submit" }, "Send");
  const stop = h("button", { type: "button", hidden: true }, "Cancel");
  const look = h("button", { type: "button", hidden: true }, "Timeline");
  const status = h("p", { class: "quiet", role: "status" });
  const answer = h("output", { class: "answer", "aria-label": "Answer", tabindex: "0" });
  const form = h("form", { class: "card try" }, field("Model", model), field("Class", kind), field("Longest answer", most), h("label", { class: "whole" }, h("span", {}, "Prompt"), prompt), h("div", { class: "levers whole" }, send, stop, look), status, answer);
  let job = null;
  look.addEventListener("click", () => job && openJob(job.id));
  stop.addEventListener("click", () => job && act(stop, "Cancelled", "POST", `/v1/jobs/${job.id}/cancel`));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    send.disabled = true;
    say(answer, "");
    say(status, "Submitting…");
    try {
      job = await call("POST", "/v1/jobs", { model: model.value, service_class: kind.value, max_tokens: Number(most.value), prompt: prompt.value });
      stop.hidden = look.hidden = false;
      await follow(job, status, answer);
    } catch (error) {
      say(status, error.message);
      if (error.status === 401) document.dispatchEvent(new CustomEvent("session-over"));
    } finally {
      send.disabled = false;
      stop.hidden = true;
    }
  });
  place.replaceChildren(form);
}

async function follow(job, status, answer) {
  say(status, `${job.status}…`);
  for await (const event of events(`/v1/jobs/${job.id}/events`, new AbortController().signal, BEGINNING)) {
    if (event.kind === "status") say(status, `${event.data.status}…`);
    if (event.kind === "token") answer.append(event.data.text);
    if (event.kind === "reset") say(answer, "");
    if (event.kind === "done") finish(event.data, status, answer);
  }
}

function finish(job, status, answer) {
  if (job.output?.text) say(answer, job.output.text);
  const facts = [job.status, job.error?.message];
  if (job.usage) facts.push(`${count(job.usage.completion_tokens)} tokens`);
  if (job.timings) facts.push(`waited ${span(job.timings.queue_ms)}, first token after ${span(job.timings.first_token_ms)}, ran ${span(job.timings.run_ms)}`);
  if (job.degradation?.level) facts.push(`level ${job.degradation.level}: ${job.degradation.reason}`);
  say(status, facts.filter(Boolean).join(" · "));
}

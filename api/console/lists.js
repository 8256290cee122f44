// Lists beside the queues: dead letters, batches, tenants and changes of level.

import { act } from "./actions.js";
import { confirmed } from "./confirm.js";
import { h, table } from "./dom.js";
import { brief, clock, count, cut, since, span } from "./format.js";
import { jobButton } from "./jobs.js";
import { meter } from "./workers.js";

export function makeDeadLetters(place) {
  const shown = table({
    caption: "Dead letters",
    key: (letter) => letter.job_id,
    empty: ["None: no job used up its attempts."],
    columns: [
      { title: "Job", heads: true, make: jobButton, update: (node, letter) => node.show(letter.job_id) },
      { title: "Tenant", class: "id", text: (letter) => letter.tenant_id },
      { title: "Model", text: (letter) => letter.model },
      { title: "Died", class: "number", text: (letter) => clock(letter.died_at) },
      { title: "Why", class: "long", text: (letter) => letter.error?.message ?? "–" },
      { title: "What to do", make: letterButtons, update: () => {} },
    ],
  });
  place.append(shown.node);
  return (frame) => shown.show(frame.dead_letters);
}

function letterButtons(row) {
  const button = (text, verb, done) => {
    const node = h("button", { type: "button" }, text);
    node.addEventListener("click", () => {
      const id = row.item.job_id;
      act(node, `${cut(id)} ${done}`, "POST", `/v1/admin/dead_letters/${id}/${verb}`);
    });
    return node;
  };
  return h("span", { class: "buttons" }, button("Requeue", "requeue", "was submitted again"), button("Discard", "discard", "is off the list"));
}

export function makeBatches(place) {
  const shown = table({
    caption: "Batches",
    key: (batch) => batch.id,
    empty: ["No batch yet."],
    columns: [
      { title: "Batch", heads: true, class: "id", text: (batch) => cut(batch.id), hint: (batch) => batch.id },
      { title: "Tenant", class: "id", text: (batch) => batch.tenant_id },
      { title: "Status", text: (batch) => batch.status },
      { title: "Lines done", make: meter, update: (node, batch) => node.show(batch.completed + batch.failed, batch.total) },
      { title: "Failed", class: "number", text: (batch) => count(batch.failed), state: (batch) => (batch.failed ? "bad" : null) },
      { title: "Time left", class: "number", text: (batch) => (batch.finished_at ? "–" : span(new Date(batch.expires_at) - Date.now())) },
      { title: "What to do", make: batchButtons, update: (node, batch) => node.show(batch) },
    ],
  });
  place.append(shown.node);
  return (frame) => shown.show(frame.batches);
}

const STOPPABLE = new Set(["validating", "in_progress"]);

function batchButtons(row) {
  const stop = h("button", { type: "button" }, "Cancel");
  const retry = h("button", { type: "button" }, "Retry failed lines");
  const send = (button, done, verb) => act(button, done, "POST", `/v1/admin/batches/${row.item.id}/${verb}`);
  stop.addEventListener("click", async () => {
    const { id, completed, failed, total } = row.item;
    const left = `${count(total - completed - failed)} of its ${count(total)} lines have not ended and will not run. What is done is delivered.`;
    const wanted = await confirmed({
      question: `Cancel batch ${cut(id)}?`,
      consequence: total ? left : "Its file is not checked yet: none of its lines will run.",
      yes: "Cancel the batch",
      no: "Let it run",
    });
    if (wanted) await send(stop, `${cut(id)} is being cancelled`, "cancel");
  });
  retry.addEventListener("click", async () => {
    const { id, tenant_id, completed, total } = row.item;
    const wanted = await confirmed({
      question: `Run failed lines of ${cut(id)} again?`,
      consequence: `A new batch of ${tenant_id} runs the ${count(total - completed)} lines that did not complete, and their tokens are used again.`,
      yes: "Run them again",
      no: "Leave it",
    });
    if (wanted) await send(retry, `A new batch runs the failed lines of ${cut(id)}`, "retry_failed");
  });
  const node = h("span", { class: "buttons" }, stop, retry);
  node.show = (batch) => {
    offer(stop, STOPPABLE.has(batch.status));
    offer(retry, batch.has_failed_lines);
    stop.setAttribute("aria-label", `Cancel batch ${cut(batch.id)}`);
    retry.setAttribute("aria-label", `Retry failed lines of batch ${cut(batch.id)}`);
  };
  return node;
}

// A button that goes while it has the focus leaves the focus in its list.
function offer(button, isOffered) {
  if (!isOffered && document.activeElement === button) button.closest(".scroll").focus();
  button.hidden = !isOffered;
}

export function makeTenants(place) {
  const shown = table({
    caption: "Tenants with the most tokens waiting",
    key: (tenant) => tenant.id,
    empty: ["Nobody has anything queued or running."],
    columns: [
      { title: "Tenant", heads: true, class: "id", text: (tenant) => tenant.name },
      { title: "Waiting", class: "number", text: (tenant) => count(tenant.waiting) },
      { title: "Tokens", class: "number", text: (tenant) => brief(tenant.tokens) },
      { title: "Running", class: "number", text: (tenant) => count(tenant.running) },
      { title: "Oldest wait", class: "number", text: (tenant) => (tenant.waiting ? span(tenant.oldest_wait_ms) : "–") },
    ],
  });
  place.append(shown.node);
  return (frame) => shown.show(frame.tenants);
}

export function makeLevels(place) {
  const shown = table({
    caption: "Changes of level",
    key: (change) => `${change.at} ${change.model} ${change.rule}`,
    empty: ["The level never changed."],
    columns: [
      { title: "Ago", heads: true, class: "number", text: (change) => since(change.at, new Date()), hint: (change) => change.at },
      { title: "Model", text: (change) => change.model },
      { title: "Level", text: (change) => `${change.before} → ${change.after}` },
      { title: "Why", class: "long", text: (change) => change.reason || change.rule },
      { title: "Who", class: "id", text: (change) => change.actor },
    ],
  });
  place.append(shown.node);
  return (frame) => shown.show(frame.changes);
}

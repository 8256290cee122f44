// Jobs of all tenants in four lists, and one of them looked at closely: what happened to it, and why it waits.

import { act } from "./actions.js";
import { call } from "./api.js";
import { byId, h, mark, say, table } from "./dom.js";
import { clock, count, cut, span } from "./format.js";

const LISTS = [
  ["recent", "Newest", "No job yet. Try a prompt beside this list, or submit one: penstock submit \"Hello\"."],
  ["waiting", "Waiting longest", "Nothing waits."],
  ["running", "Running", "Nothing runs."],
  ["failing", "Failing", "None of the last 2,000 jobs failed or expired."],
];
const TONES = { completed: "good", failed: "bad", expired: "bad", cancelled: "quiet", cancelling: "warn", running: "info" };
const OVER = new Set(["completed", "failed", "cancelled", "expired"]);

export function makeJobs(choice, place) {
  let chosen = "recent";
  let last = null;
  const empty = h("span");
  const shown = table({ caption: "Jobs", columns: COLUMNS, key: (job) => job.id, empty: [empty] });
  place.append(shown.node);
  const show = (frame) => {
    last = frame;
    say(empty, LISTS.find(([name]) => name === chosen)[2]);
    shown.show(frame.jobs[chosen]);
    for (const button of choice.children) mark(button, "aria-pressed", String(button.name === chosen));
  };
  for (const [name, title] of LISTS) {
    const choose = () => {
      chosen = name;
      if (last) show(last);
    };
    choice.append(h("button", { type: "button", name, "aria-pressed": "false", onclick: choose }, title));
  }
  return show;
}

const COLUMNS = [
  { title: "Job", heads: true, make: jobButton, update: (node, job) => node.show(job.id) },
  { title: "Status", text: (job) => job.status, state: (job) => TONES[job.status] },
  { title: "Tenant", class: "id", text: (job) => job.tenant },
  { title: "Model", text: (job) => job.model },
  { title: "Class", text: (job) => `${job.service_class} ${job.priority}`, hint: () => "Class and priority" },
  { title: "Submitted", class: "number", text: (job) => clock(job.created_at) },
  { title: "Waited", class: "number", text: (job) => span(job.wait_ms) },
  { title: "Ran", class: "number", text: (job) => span(job.run_ms) },
  { title: "Tokens", class: "number", text: (job) => count(job.tokens) },
  { title: "Level", class: "number", text: (job) => String(job.level), state: (job) => (job.level ? "warn" : null) },
  { title: "Error", class: "long", text: (job) => job.error?.code ?? "", hint: (job) => job.error?.message ?? null },
];

export function jobButton() {
  const node = h("button", { type: "button", class: "plain id" });
  node.addEventListener("click", () => openJob(node.title));
  node.show = (id) => {
    mark(node, "title", id);
    say(node, cut(id));
  };
  return node;
}

let open = null; // the id that the dialog shows

export function openJob(id) {
  open = id;
  const dialog = byId("job");
  dialog.replaceChildren(h("p", {}, "Looking…"));
  dialog.showModal();
  refreshJob();
}

export async function refreshJob() {
  const dialog = byId("job");
  if (!dialog.open || !open) return;
  const asked = open;
  try {
    const job = await call("GET", `/v1/admin/jobs/${asked}`);
    if (asked === open) draw(dialog, job);
  } catch (error) {
    if (asked === open) dialog.replaceChildren(h("p", { role: "alert" }, error.message), closer(dialog));
  }
}

function draw(dialog, job) {
  const before = dialog.querySelector("[data-version]");
  const print = JSON.stringify([job.version, job.waits]);
  if (before && before.dataset.version === print) return;
  const timeline = table({ caption: "Timeline", columns: TIMELINE, key: (change) => change.version, empty: [] });
  timeline.show(job.timeline);
  const focus = dialog.contains(document.activeElement) ? document.activeElement.name : null;
  dialog.replaceChildren(
    h(
      "div",
      { "data-version": print },
      h("div", { class: "heading" }, h("h2", { id: "job-title" }, "Job ", h("code", {}, job.id)), h("span", { class: "pill", "data-state": TONES[job.status] }, job.status)),
      job.waits && h("p", { class: "waits", "data-state": "warn" }, h("strong", {}, "Why it waits: "), job.waits.sentence, " ", h("em", {}, job.waits.remedy)),
      job.error && h("p", { class: "waits", "data-state": "bad" }, h("strong", {}, `${job.error.code}: `), job.error.message),
      h("dl", { class: "facts" }, ...facts(job).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
      h("h3", {}, "Timeline"),
      timeline.node,
      h("div", { class: "levers" }, !OVER.has(job.status) && cancelButton(job), closer(dialog)),
    ),
  );
  (dialog.querySelector(`[name="${focus}"]`) ?? dialog.querySelector("button[name=close]")).focus();
}

function facts(job) {
  return [
    ["Tenant", job.tenant],
    ["Model", job.model],
    ["Class", `${job.service_class}, priority ${job.priority}`],
    ["Attempt", `${job.attempt} of ${job.max_attempts}`],
    ["Worker", job.worker ?? "–"],
    ["Waited", span(job.wait_ms)],
    ["Ran", span(job.run_ms)],
    ["Tokens", count(job.tokens)],
    ["Level", String(job.level)],
    ["Batch", job.batch_id ?? "–"],
  ];
}

const TIMELINE = [
  { title: "At", heads: true, text: (change) => clock(change.at), hint: (change) => change.at },
  { title: "Status", text: (change) => change.status, state: (change) => TONES[change.status] },
  { title: "Attempt", class: "number", text: (change) => String(change.attempt) },
  { title: "Worker", class: "id", text: (change) => change.worker ?? "–" },
  { title: "Reason", class: "long", text: (change) => change.reason ?? "" },
];

function cancelButton(job) {
  const button = h("button", { type: "button", name: "cancel" }, "Cancel job");
  button.addEventListener("click", async () => {
    await act(button, `${cut(job.id)} is cancelled`, "POST", `/v1/admin/jobs/${job.id}/cancel`);
    await refreshJob();
  });
  return button;
}

function closer(dialog) {
  return h("button", { type: "button", name: "close", onclick: () => dialog.close() }, "Close");
}

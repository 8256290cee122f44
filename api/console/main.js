// Signs in, keeps one stream of overviews open, and hands each to the parts of the page.

import { showAttention, showTotals } from "./attention.js";
import { call, events } from "./api.js";
import { byId, mark, say } from "./dom.js";
import { clock } from "./format.js";
import { makeJobs, refreshJob } from "./jobs.js";
import { makeBatches, makeDeadLetters, makeLevels, makeTenants } from "./lists.js";
import { showModels } from "./queues.js";
import { makeTry } from "./try.js";
import { makeWorkers } from "./workers.js";

const LONGEST_PAUSE = 10_000; // milliseconds between attempts to connect

const shows = [
  (frame) => showAttention(byId("attention"), frame),
  (frame) => showTotals(byId("totals"), frame),
  (frame) => showModels(byId("models"), frame),
  makeWorkers(byId("workers")),
  makeJobs(byId("job-lists"), byId("jobs")),
  makeDeadLetters(byId("dead")),
  makeTenants(byId("tenants")),
  makeBatches(byId("batches")),
  makeLevels(byId("levels")),
];

let watching = null; // the controller of the stream, while signed in
let lastSeen = null;

async function start() {
  try {
    const session = await call("GET", "/console/session");
    if (session) enter(session);
    else leave("");
  } catch (error) {
    leave(error.status ? error.message : "The API does not answer. This page tries again in a few seconds.");
    if (!error.status) setTimeout(start, 3000);
  }
}

function enter(session) {
  byId("door").hidden = true;
  byId("house").hidden = false;
  say(byId("who"), session.tenant_id);
  const flower = byId("flower");
  flower.hidden = !session.flower_url;
  if (session.flower_url) flower.href = session.flower_url;
  makeTry(byId("try"), session);
  look();
}

function look() {
  watching?.abort();
  watching = new AbortController();
  watch(watching.signal);
}

function leave(message) {
  watching?.abort();
  watching = null;
  byId("job").close();
  byId("confirm").close();
  byId("house").hidden = true;
  byId("door").hidden = false;
  say(byId("door-message"), message);
  byId("key").focus();
}

async function watch(signal) {
  let pause = 1000;
  while (!signal.aborted) {
    try {
      for await (const event of events("/v1/admin/overview/events", signal)) {
        pause = 1000;
        take(event);
        if (signal.aborted) return;
      }
    } catch (error) {
      if (error.status === 401 || error.status === 403) return leave("The session has ended: sign in again.");
    }
    if (signal.aborted) return;
    connection("bad", `The API does not answer. ${lastSeen ? `What you see is from ${clock(lastSeen)}. ` : ""}Trying again…`);
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(LONGEST_PAUSE, pause * 2);
  }
}

function take({ kind, data }) {
  if (kind === "expired") return leave("The session has ended: sign in again.");
  if (kind === "trouble") return connection("bad", `Nothing new to see: ${data.reason}`);
  if (kind !== "overview") return;
  lastSeen = data.at;
  connection("good", "Live");
  for (const show of shows) show(data);
  refreshJob();
}

function connection(state, text) {
  mark(byId("link"), "data-state", state);
  say(byId("link-text"), text);
  mark(byId("page"), "data-stale", state === "bad");
}

byId("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const key = byId("key");
  say(byId("door-message"), "");
  try {
    await call("POST", "/console/session", { key: key.value.trim() });
    key.value = "";
    enter(await call("GET", "/console/session"));
  } catch (error) {
    say(byId("door-message"), error.message);
  }
});

byId("sign-out").addEventListener("click", async () => {
  try {
    await call("DELETE", "/console/session");
    leave("");
  } catch {
    connection("bad", "The API does not answer, so the session is still good. Try again.");
  }
});

// A page that nobody sees asks for nothing.
document.addEventListener("visibilitychange", () => {
  if (!watching) return;
  if (document.hidden) watching.abort();
  else look();
});

document.addEventListener("session-over", () => leave("The session has ended: sign in again."));

start();

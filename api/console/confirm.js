// Asks before what cannot be taken back: nothing is done unless the operator says so.

import { byId, h } from "./dom.js";

// Resolves to whether it shall be done. The focus is on the answer that does nothing, and Escape gives it.
export function confirmed({ question, consequence, yes, no }) {
  const dialog = byId("confirm");
  const answer = (text, value, attributes) => h("button", { type: "button", onclick: () => dialog.close(value), ...attributes }, text);
  const keep = answer(no, "", { autofocus: true });
  dialog.replaceChildren(
    h("h2", { id: "confirm-title" }, question),
    h("p", { id: "confirm-text" }, consequence),
    h("div", { class: "levers" }, keep, answer(yes, "yes", { class: "danger" })),
  );
  dialog.returnValue = "";
  dialog.showModal();
  keep.focus();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

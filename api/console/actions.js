// One click, one request, one word about how it went.

import { call } from "./api.js";
import { byId } from "./dom.js";

let fading = 0;

export function tell(text, tone = "good") {
  const toast = byId("toast");
  toast.hidePopover();
  toast.textContent = text;
  toast.showPopover(); // above an open dialog
  toast.dataset.state = tone;
  clearTimeout(fading);
  fading = setTimeout(() => toast.hidePopover(), 8000);
}

// Resolves to the answer, or to undefined where it was refused and said so.
export async function act(button, done, method, path, body) {
  const hadFocus = document.activeElement === button;
  button.disabled = true; // and so it loses the focus
  try {
    const answer = await call(method, path, body);
    tell(done);
    return answer ?? true;
  } catch (error) {
    tell(error.message, "bad");
    if (error.status === 401) document.dispatchEvent(new CustomEvent("session-over"));
    return undefined;
  } finally {
    button.disabled = false;
    if (hadFocus && document.activeElement === document.body) keepPlace(button);
  }
}

// The focus is on the button, or where it has gone meanwhile on the list that it was in.
function keepPlace(button) {
  const place = button.offsetParent ? button : button.closest(".scroll");
  place?.focus();
}

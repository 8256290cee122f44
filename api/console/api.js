// Asks the API as the console: its own header is what makes the session's cookie count.

const OWN = { "X-Penstock-Console": "1" };
const SILENCE = 20_000; // milliseconds without a byte after which a stream is not believed

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function call(method, path, body) {
  const headers = body === undefined ? OWN : { ...OWN, "Content-Type": "application/json" };
  const answer = await sent(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  if (!answer.ok) throw await refusal(answer);
  return answer.status === 204 ? null : answer.json();
}

// A browser's own word for it, "Failed to fetch", helps nobody.
async function sent(path, options) {
  try {
    return await fetch(path, options);
  } catch {
    throw new Refused(0, "The API does not answer. Is it running?");
  }
}

async function refusal(answer) {
  let said = answer.statusText || `HTTP ${answer.status}`;
  try {
    said = (await answer.json()).detail || said;
  } catch {
    // A proxy's own page: its status says enough.
  }
  return new Refused(answer.status, said);
}

// Server-sent events by fetch, because EventSource cannot send a header. Ends when the server ends.
// `after` is the id of the last event that is known.
export async function* events(path, signal, after) {
  const silent = new AbortController();
  const timer = { id: 0 };
  const heard = () => {
    clearTimeout(timer.id);
    timer.id = setTimeout(() => silent.abort(), SILENCE);
  };
  heard();
  try {
    const answer = await fetch(path, { headers: after ? { ...OWN, "Last-Event-ID": after } : OWN, signal: AbortSignal.any([signal, silent.signal]) });
    if (!answer.ok) throw await refusal(answer);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      heard();
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parse(block);
        if (event) yield event;
      }
    }
  } finally {
    clearTimeout(timer.id);
  }
}

function parse(block) {
  const event = { kind: "message", data: null };
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) event.kind = line.slice(7);
    if (line.startsWith("data: ")) event.data = JSON.parse(line.slice(6));
  }
  return event.data === null ? null : event;
}

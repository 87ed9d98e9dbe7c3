// The events of an asynchronous inference: how far it is, and its rows.

import { authorization, Unreachable } from "./api.js";

const LAST = ["completed", "failed"];
const MOST_FAILURES = 15; // with the pauses in between a minute, in which a service has restarted

// The events that are whole in `text`, each as its data with its `name` and `id`, and the rest of
// the text. Beats, which are comments, are left out.
function parseEvents(text) {
  const blocks = text.split("\n\n");
  const rest = blocks.pop();
  const events = blocks.flatMap((block) => {
    const { event, id, data } = Object.fromEntries(block.split("\n").map((line) => line.split(/: ?(.*)/s)));
    return data ? [{ ...JSON.parse(data), name: event, id }] : [];
  });
  return { events, rest };
}

// Yields the events at `url` until the last, and `{name: "lost"}` whenever the connection is. Ends
// without the last if the service no longer knows the inference. Rejects with Unreachable, or with
// an AbortError after `signal`. Uses fetch because EventSource cannot send a token.
export async function* watch(url, { token, signal }) {
  let last = "";
  for (let failures = 0; failures < MOST_FAILURES; failures += 1) {
    if (failures) yield { name: "lost" };
    await pause(Math.min(5, failures), signal);
    try {
      const headers = { Authorization: authorization(token), Accept: "text/event-stream" };
      if (last) headers["Last-Event-ID"] = last;
      const response = await fetch(url, { headers, signal, cache: "no-store" });
      if (response.status >= 400 && response.status < 500) return;
      if (!response.ok) continue; // a proxy's, while the service restarts
      for await (const event of read(response.body)) {
        failures = 0;
        last = event.id;
        yield event;
        if (LAST.includes(event.name)) return;
      }
    } catch (error) {
      if (signal.aborted || !(error instanceof TypeError)) throw error; // TypeErrors are the network's
    }
  }
  throw new Unreachable();
}

async function* read(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (let text = ""; ; ) {
      const { done, value } = await reader.read();
      if (done) return;
      const { events, rest } = parseEvents(text + value);
      text = rest;
      yield* events;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.throwIfAborted();
    signal.addEventListener("abort", abort, { once: true });
    setTimeout(() => {
      signal.removeEventListener("abort", abort);
      resolve();
    }, 1000 * seconds);
  });
}

import { signal } from "@preact/signals";
import { errorOf } from "./api.ts";
import { session } from "./session.ts";
import { readEvents } from "./sse.ts";
import type { Envelope } from "./types.ts";

interface Listener {
  readonly onEvents: (events: readonly Envelope[]) => void;
  /** Called where events were missed: what is shown may lack some. */
  readonly onGap: (() => void) | undefined;
}

/** How the stream stands; `since`: when something last came from it, in ms. */
export const live = signal<{ readonly state: "off" | "connecting" | "on" | "stale"; readonly since: number }>({
  state: "off",
  since: 0,
});

/** From the tab that reads: what came, up to which event, and whether the stream is open. */
interface Message {
  readonly events: readonly Envelope[];
  readonly lastId: string;
  readonly on: boolean;
  readonly gap?: boolean;
}

const listeners = new Set<Listener>();
const channel = new BroadcastChannel("panel-live");
let lastId = "";
let running: AbortController | undefined;
/** Whether this tab's stream is open. */
let reads = false;

/** Calls `onEvents` with each event of the proxy, and `onGap` after some were missed; returns what ends that. */
export function onEvents(onEvents: Listener["onEvents"], onGap?: () => void): () => void {
  const listener = { onEvents, onGap };
  listeners.add(listener);
  update();
  return () => {
    listeners.delete(listener);
    update();
  };
}

/**
 * One stream for all tabs: HTTP/1.1 gives a browser six connections to an origin. The tab that holds the lock reads and
 * tells the others; a tab that is hidden or shows nothing live gives the lock up.
 */
export function startLive(): void {
  channel.onmessage = ({ data }: MessageEvent<Message | "ask">) => {
    if (data !== "ask") receive(data);
    else if (reads) channel.postMessage({ events: [], lastId, on: true } satisfies Message);
  };
  // A new tab that reads next goes on where the present one is.
  channel.postMessage("ask");
  document.addEventListener("visibilitychange", update);
}

function update(): void {
  const wanted = listeners.size > 0 && document.visibilityState === "visible";
  if (!wanted) {
    running?.abort();
    running = undefined;
    if (live.value.state !== "off") live.value = { ...live.value, state: "off" };
    return;
  }
  if (running !== undefined) return;
  const abort = new AbortController();
  running = abort;
  if (live.value.state === "off") live.value = { ...live.value, state: "connecting" };
  channel.postMessage("ask");
  // Plain http has no locks outside of loopback: each visible tab reads for itself there.
  const { locks } = navigator as { readonly locks?: LockManager };
  const reading =
    locks === undefined
      ? readUntilAborted(abort.signal)
      : locks.request("panel-live", { signal: abort.signal }, () => readUntilAborted(abort.signal));
  reading.catch(() => undefined);
}

async function readUntilAborted(stop: AbortSignal): Promise<void> {
  for (let wait = 500; !isAborted(stop); wait = Math.min(wait * 2, 15_000)) {
    try {
      if (await readOnce(stop)) wait = 250;
    } catch {
      // The stream broke; it goes on behind its last event.
    }
    reads = false;
    if (isAborted(stop)) return;
    tell({ events: [], lastId, on: false });
    await delay(wait, stop);
  }
}

/** Waits; not any more once `stop` is aborted: another tab waits for the lock. */
function delay(ms: number, stop: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      stop.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    stop.addEventListener("abort", end);
  });
}

function isAborted({ aborted }: AbortSignal): boolean {
  return aborted;
}

/** Reads one stream to its end; whether it was one. */
async function readOnce(stop: AbortSignal): Promise<boolean> {
  if (session.value === null) return false;
  const response = await fetch(`/admin/events${lastId === "" ? "" : `?last_event_id=${encodeURIComponent(lastId)}`}`, {
    headers: { accept: "text/event-stream" },
    signal: stop,
  });
  if (!response.ok) throw await errorOf(response);
  reads = true;
  tell({ events: [], lastId, on: true });
  let batch: Envelope[] = [];
  let gap = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const flush = (): void => {
    clearTimeout(timer);
    timer = undefined;
    tell({ events: batch, lastId, on: reads, gap });
    batch = [];
    gap = false;
  };
  // A busy proxy has thousands of events a second: the page is drawn for some of them at once.
  const flushSoon = (): void => {
    timer ??= setTimeout(flush, 150);
  };
  try {
    for await (const event of readEvents(response)) {
      if (event.id !== "") lastId = event.id;
      if (event.type === "gap") gap = true;
      else if (event.data !== "") batch.push(JSON.parse(event.data) as Envelope);
      flushSoon();
    }
  } finally {
    // The next tab to read begins behind these.
    if (timer !== undefined) flush();
  }
  return true;
}

function tell(message: Message): void {
  channel.postMessage(message);
  receive(message);
}

function receive({ events, lastId: id, on, gap = false }: Message): void {
  if (id !== "") lastId = id;
  const state = running === undefined ? "off" : on ? "on" : "stale";
  live.value = { state, since: on ? Date.now() : live.value.since };
  for (const { onEvents, onGap } of listeners) {
    if (gap) onGap?.();
    if (events.length > 0) onEvents(events);
  }
}

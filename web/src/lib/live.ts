import { signal } from "@preact/signals";
import { errorOf } from "./api.ts";
import { session } from "./session.ts";
import { readEvents } from "./sse.ts";
import type { Envelope } from "./types.ts";

type Listener = (events: readonly Envelope[]) => void;

/** How the stream stands; `since`: when something last came from it, in ms. */
export const live = signal<{ readonly state: "off" | "connecting" | "on" | "stale"; readonly since: number }>({
  state: "off",
  since: 0,
});

interface Message {
  readonly events: readonly Envelope[];
  readonly lastId: string;
  readonly on: boolean;
}

const listeners = new Set<Listener>();
const channel = new BroadcastChannel("panel-live");
let lastId = "";
let running: AbortController | undefined;

/** Calls `listener` with each event of the proxy; returns what ends that. */
export function onEvents(listener: Listener): () => void {
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
  channel.onmessage = ({ data }: MessageEvent<Message>) => {
    receive(data);
  };
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
    if (isAborted(stop)) return;
    live.value = { ...live.value, state: "stale" };
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
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
  tell([]);
  let batch: Envelope[] = [];
  let timer: ReturnType<typeof setTimeout> | undefined;
  const flush = (): void => {
    timer = undefined;
    tell(batch);
    batch = [];
  };
  for await (const event of readEvents(response)) {
    if (event.id !== "") lastId = event.id;
    if (event.type === "gap") continue;
    batch.push(JSON.parse(event.data) as Envelope);
    // A busy proxy has thousands of events a second: the page is drawn for some of them at once.
    timer ??= setTimeout(flush, 150);
  }
  return true;
}

function tell(events: readonly Envelope[]): void {
  const message = { events, lastId, on: true };
  channel.postMessage(message);
  receive(message);
}

function receive({ events, lastId: id }: Message): void {
  if (id !== "") lastId = id;
  live.value = { state: running === undefined ? "off" : "on", since: Date.now() };
  if (events.length > 0) for (const listener of listeners) listener(events);
}

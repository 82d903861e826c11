import type { ServerResponse } from "node:http";
import type { Pace } from "./scenarios.ts";
import type { Ticking } from "./ticker.ts";

/** A response ready to be sent. Immutable, so that one plan serves any number of streams. */
export interface StreamPlan {
  /** Each is one write: an event if the stream is paced, otherwise up to 64 KiB of events. */
  readonly writes: readonly Buffer[];
  readonly pace: Pace;
  readonly ending: "end" | "reset" | "stall";
}

const maxWriteBytes = 65_536;
const comment = Buffer.from(": keep-alive\n\n");

/** Groups events into writes, according to the pace. */
export function planWrites(events: readonly string[], pace: Pace): readonly Buffer[] {
  const buffers = events.map((event) => Buffer.from(event));
  if (pace.tokensPerSecond > 0) return buffers;
  const writes: Buffer[] = [];
  let group: Buffer[] = [];
  let size = 0;
  for (const buffer of buffers) {
    if (size > 0 && size + buffer.length > maxWriteBytes) {
      writes.push(Buffer.concat(group));
      group = [];
      size = 0;
    }
    group.push(buffer);
    size += buffer.length;
  }
  return size > 0 ? [...writes, Buffer.concat(group)] : writes;
}

/** Sends one plan to one client: queue, first token, tokens, ending. Waits for a slow reader. */
export class Playback implements Ticking {
  readonly #plan: StreamPlan;
  readonly #response: ServerResponse;
  readonly #keepAliveMs: number;
  readonly #queueEndsAt: number;
  readonly #firstEventAt: number;
  #nextEventAt: number;
  #nextCommentAt: number;
  #index = 0;
  /** While the socket is full nothing is written, not even comments. */
  #blocked = false;

  /** `now` is the monotonic time in ms; the headers have been set on `response`. */
  constructor(plan: StreamPlan, response: ServerResponse, keepAliveMs: number, now: number) {
    this.#plan = plan;
    this.#response = response;
    this.#keepAliveMs = keepAliveMs;
    this.#queueEndsAt = now + plan.pace.queueMs;
    this.#firstEventAt = this.#queueEndsAt + plan.pace.firstTokenMs;
    this.#nextEventAt = this.#firstEventAt;
    this.#nextCommentAt = now;
    response.on("drain", () => (this.#blocked = false));
  }

  /** Sends what is due. False once there is nothing more to send. */
  tick(now: number): boolean {
    if (this.#blocked) return true;
    if (now < this.#queueEndsAt) this.#keepAlive(now);
    if (now < this.#firstEventAt) return true;
    const { writes, pace, ending } = this.#plan;
    while (!this.#blocked && this.#index < writes.length && now >= this.#nextEventAt) {
      if (pace.tokensPerSecond > 0) this.#nextEventAt += 1000 / pace.tokensPerSecond;
      this.#nextCommentAt = now + this.#keepAliveMs;
      const bytes = writes[this.#index++];
      // The last bytes and the end are one write, since writes take most of the time of a benchmark's upstream.
      if (ending === "end" && this.#index === writes.length) return this.#end(bytes);
      if (bytes !== undefined) this.#blocked = !this.#response.write(bytes);
    }
    if (this.#index < writes.length) return true;
    if (ending === "end") return this.#end();
    if (ending === "reset") return this.#reset();
    this.#keepAlive(now);
    return true;
  }

  #keepAlive(now: number): void {
    if (now < this.#nextCommentAt) return;
    this.#nextCommentAt = now + this.#keepAliveMs;
    this.#blocked = !this.#response.write(comment);
  }

  #end(bytes?: Buffer): false {
    this.#response.end(bytes);
    return false;
  }

  /** A reset discards data still in this process, so it waits until the events have been sent. */
  #reset(): boolean {
    if (this.#response.writableLength > 0) return true;
    this.#response.socket?.resetAndDestroy();
    return false;
  }
}

/** Sends every byte in a separate write, and so in a separate packet. */
export function playBytewise(bytes: Buffer, response: ServerResponse): void {
  let index = 0;
  function next(): void {
    if (response.destroyed) return;
    if (index === bytes.length) response.end();
    // A turn of the event loop in between, or Node would join the bytes again.
    else response.write(bytes.subarray(index, ++index), () => setImmediate(next));
  }
  next();
}

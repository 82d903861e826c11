import { createIsoTime } from "../lib/dates.ts";
import { type EventType, type ProxyEvent, rowOf, text } from "./catalogue.ts";
import { payloads } from "./payloads.ts";

/** An event as every consumer outside this process gets it. */
export interface Envelope {
  /** A UUID of version 7, lower case. The same for every consumer of one event: duplicates are recognised by it. */
  readonly id: string;
  /** ISO 8601, UTC, with ms. */
  readonly time: string;
  readonly type: EventType;
  /** Of the payload's schema. */
  readonly version: number;
  /** The process that emitted it. */
  readonly node: string;
  /** X-Request-ID of the request that caused it; null if none did. */
  readonly request_id: string | null;
  /** The W3C trace-id of that request, 32 hex digits. */
  readonly trace_id: string | null;
  readonly user: string | null;
  readonly group: string | null;
  readonly key_id: string | null;
  /** The client's. */
  readonly address: string | null;
  /** By the schema of its type in payloads.ts. */
  readonly data: object;
}

/** Envelopes and texts of events. Each keeps what it made for the latest event: one sink after the other asks for it. */
export interface Envelopes {
  of(event: ProxyEvent): Envelope;
  /** The id alone. */
  idOf(event: ProxyEvent): string;
  /** The envelope as JSON, without line feeds. */
  textOf(event: ProxyEvent): string;
  /** The fields of eventFacts as JSON. */
  factsTextOf(event: ProxyEvent): string;
}

/**
 * @param options `node`: the name of the process; `newId`: makes the ids, see createUuid7; `runningTraces`: as in Events
 */
export function createEnvelopes(options: {
  readonly node: string;
  readonly newId: () => string;
  readonly runningTraces?: ReadonlyMap<string, string>;
}): Envelopes {
  const { node, newId, runningTraces } = options;
  const isoTime = createIsoTime();
  let event: ProxyEvent | null = null;
  let id = "";
  let envelope: Envelope | null = null;
  let envelopeText = "";
  let factsText = "";
  let dataText = "";

  function turnTo(next: ProxyEvent): void {
    if (next === event) return;
    event = next;
    id = newId();
    envelope = null;
    envelopeText = "";
    factsText = "";
    dataText = "";
  }

  function of(of: ProxyEvent): Envelope {
    turnTo(of);
    envelope ??= { ...headOf(of, id), data: rowOf(of).payload(of) };
    return envelope;
  }

  function headOf(from: ProxyEvent, id: string): Omit<Envelope, "data"> {
    return {
      id,
      time: isoTime(from.at),
      type: from.type,
      version: payloads[from.type].version,
      node,
      request_id: orNull(from.traceId),
      // Whoever emits it need not know it: most do so while their request runs.
      trace_id: from.w3cTraceId ?? runningTraces?.get(from.traceId) ?? null,
      user: "user" in from ? orNull(from.user) : null,
      group: "group" in from ? orNull(from.group) : null,
      key_id: "keyId" in from ? orNull(from.keyId) : null,
      address: orNull(from.ip),
    };
  }

  /** The payload is rendered once, into both texts. */
  function dataOf(from: ProxyEvent): string {
    if (dataText === "") dataText = JSON.stringify(envelope?.data ?? rowOf(from).payload(from));
    return dataText;
  }

  return {
    of,
    idOf(of) {
      turnTo(of);
      return id;
    },
    textOf(of) {
      turnTo(of);
      if (envelopeText === "") {
        envelopeText = `${JSON.stringify(headOf(of, id)).slice(0, -1)},"data":${dataOf(of)}}`;
      }
      return envelopeText;
    },
    factsTextOf(of) {
      turnTo(of);
      if (factsText === "") {
        const data = dataOf(of);
        factsText = JSON.stringify(commonFacts(of)).slice(0, -1) + (data === "{}" ? "}" : `,${data.slice(1)}`);
      }
      return factsText;
    },
  };
}

function orNull(value: string | null): string | null {
  return value === null || value === "" ? null : text(value);
}

/** Fields for logs, in snake case. */
type Facts = Readonly<Record<string, unknown>>;

/**
 * The loggable fields of an event, as logs and alerts have them. Times in ms, `cost_nano` in nano-units of `currency`.
 */
export function eventFacts(event: ProxyEvent): Facts {
  return { ...commonFacts(event), ...rowOf(event).payload(event) };
}

/** What no request has caused has no trace id and no address. */
function commonFacts(event: ProxyEvent): Facts {
  if (event.type === "config.reloaded" || event.type === "config.rejected") return { event: event.type };
  const { type, traceId, ip } = event;
  // There are many of these: spreading would cost more than the rest.
  if (event.type === "chat.finished") {
    const { user, keyId, group } = event;
    return {
      event: type,
      trace_id: text(traceId),
      ip: text(ip),
      user: text(user),
      key_id: text(keyId),
      group: text(group),
    };
  }
  const base = { event: type, trace_id: text(traceId), ip: text(ip) };
  return "user" in event && event.user !== null ? { ...base, user: text(event.user) } : base;
}

import { type ProxyEvent, rowOf, text } from "./catalogue.ts";

/**
 * The loggable fields of an event. Times in ms, `cost_nano` in nano-units of `currency`. What no request has caused has
 * no trace id and no address.
 */
export function eventFacts(event: ProxyEvent): Readonly<Record<string, unknown>> {
  const facts = rowOf(event).facts(event);
  if (event.type === "chat.finished") return facts;
  if (event.type === "config.reloaded" || event.type === "config.rejected") return { event: event.type, ...facts };
  return { event: event.type, trace_id: text(event.traceId), ip: text(event.ip), ...facts };
}

/**
 * Creates a function that renders an event's loggable fields as a JSON object. It caches the latest one: the bus passes
 * each event to one sink after the other, and two of them write it.
 */
export function createEventText(): (event: ProxyEvent) => string {
  let last: ProxyEvent | null = null;
  let text = "";
  return (event) => {
    if (event !== last) {
      text = JSON.stringify(eventFacts(event));
      last = event;
    }
    return text;
  };
}

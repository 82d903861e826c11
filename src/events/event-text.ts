import { eventFacts } from "./event-facts.ts";
import type { ProxyEvent } from "./types.ts";

/**
 * Makes a function that gives what may be written down about an event as JSON, an object. It remembers the last one:
 * the bus hands each event to one sink after the other, and two of them write it down.
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

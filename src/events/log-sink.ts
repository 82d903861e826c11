import type { Sink } from "./bus.ts";
import { rowOf } from "./catalogue.ts";
import { type Envelopes, eventFacts } from "./envelope.ts";
import type { Logger } from "./logger.ts";

/**
 * One line in the proxy's own log for each event that has one, by the catalogue. Other refusals are logged where their
 * response is sent.
 */
export function createLogSink(log: Logger, envelopes: Pick<Envelopes, "factsTextOf">): Sink {
  return (event) => {
    const { log: line } = rowOf(event);
    if (line === null) return;
    // By far the most frequent, and the behaviour log needs the same text.
    if (event.type === "chat.finished") log.infoJson(envelopes.factsTextOf(event), line.message);
    else log[line.level](eventFacts(event), line.message);
    if (event.type === "config.reloaded" && event.restartNeeded.length > 0)
      log.warn({ restart_needed: event.restartNeeded }, "some changes of the config need a restart");
  };
}

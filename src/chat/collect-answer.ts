import type { AnswerSink } from "../upstream/answer-reader.ts";
import type { Exchange } from "../upstream/exchange.ts";
import { UpstreamFault } from "../upstream/faults.ts";
import type { Client } from "./client.ts";
import { Collector } from "./collect.ts";
import { completed, endingOfDeparture, endingOfFault, type Ending } from "./ending.ts";

/** What became of an answer that is to be one JSON. */
export interface Collected {
  readonly ending: Ending;
  /** The completion; only with a complete answer. */
  readonly completion: Buffer | null;
}

/** Collects an answer's events into one chat completion. Resolves when the answer is over or the client has left. */
export function collectAnswer(exchange: Exchange, client: Client): Promise<Collected> {
  return new Promise((resolve) => {
    const sink = new CollectingSink((fault) => {
      client.onGone = undefined;
      resolve(fault === null ? serialized(sink.collector) : failed(fault));
    });
    client.onGone = () => {
      client.onGone = undefined;
      resolve({ ending: endingOfDeparture(client.departed ?? "client_gone"), completion: null });
    };
    if (client.gone) client.onGone();
    else exchange.pipe(sink);
  });
}

function serialized(collector: Collector): Collected {
  try {
    return { ending: completed, completion: Buffer.from(JSON.stringify(collector.result())) };
  } catch (cause) {
    // JSON.parse takes nesting that JSON.stringify overflows on.
    return failed(new UpstreamFault({ kind: "invalid_response", stage: "streaming", cause }));
  }
}

function failed(fault: UpstreamFault): Collected {
  return { ending: endingOfFault(fault), completion: null };
}

class CollectingSink implements AnswerSink {
  readonly collector = new Collector();
  readonly #end: (fault: UpstreamFault | null) => void;
  #fault: UpstreamFault | null = null;

  constructor(end: (fault: UpstreamFault | null) => void) {
    this.#end = end;
  }

  onEvent(_event: Buffer, _start: number, _end: number, data: Buffer, dataStart: number, dataEnd: number): void {
    try {
      this.collector.add(JSON.parse(data.toString("utf8", dataStart, dataEnd)));
    } catch (cause) {
      this.#fault ??= new UpstreamFault({ kind: "invalid_response", stage: "streaming", cause });
    }
  }

  onBatch(): void {
    // Nothing is written before the end.
  }

  onEnd(fault: UpstreamFault | null): void {
    this.#end(fault ?? this.#fault);
  }
}

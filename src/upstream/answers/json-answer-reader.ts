import { GrowingBuffer } from "../../lib/growing-buffer.ts";
import { isFields } from "./answer-facts.ts";
import { faultOfError } from "./error-answer.ts";
import { UpstreamFault } from "../faults.ts";
import type { Provider, ReportedUsage } from "../providers/provider.ts";
import type { AnswerSink, Reader } from "./reader.ts";
import { findError } from "./reported-error.ts";
import { readPromptUsage } from "./usage.ts";

/** Two thousand vectors of 3,072 numbers, in base64. */
const maxBytes = 64 << 20;

/**
 * Reads an answer that is one JSON with a list under `data`, such as embeddings. It counts as one event, which is there
 * once all of it is: until then another provider may be asked.
 */
export class JsonAnswerReader implements Reader {
  readonly mediaType = "application/json";
  readonly done = false;
  readonly prompt = null;
  /** There is none: what is billed is the prompt. */
  readonly outputTokens = 0;
  readonly graceMs = null;
  usage: ReportedUsage | null = null;
  fault: UpstreamFault | null = null;
  readonly #provider: Provider;
  readonly #sink: AnswerSink;
  #body = new GrowingBuffer(maxBytes);

  constructor(provider: Provider, sink: AnswerSink) {
    this.#provider = provider;
    this.#sink = sink;
  }

  push(chunk: Buffer): void {
    if (this.fault === null && !this.#body.push(chunk))
      this.fault = this.#newFault("invalid_response", "the answer is larger than 64 MiB");
    this.#sink.onBatch();
  }

  end(cut: UpstreamFault | null = null): UpstreamFault | null {
    if (this.fault !== null) return this.fault;
    const body = this.#body.take();
    this.#body = new GrowingBuffer(0);
    const answer = parse(body);
    if (!isFields(answer)) return cut ?? this.#newFault("invalid_response", "the answer is not a JSON object");
    const error = findError(answer);
    if (error !== null) return faultOfError(this.#provider, "", error, 200, { stage: "first_event" });
    if (!Array.isArray(answer.data)) return this.#newFault("invalid_response", "the answer has no list under data");
    this.usage = readPromptUsage(answer.usage);
    this.#sink.onEvent(body, 0, body.length, 0, "finish", answer);
    return null;
  }

  #newFault(kind: UpstreamFault["facts"]["kind"], upstreamMessage: string): UpstreamFault {
    return new UpstreamFault({ kind, stage: "first_event", upstreamMessage });
  }
}

function parse(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString("utf8"));
  } catch {
    return undefined;
  }
}

import { destination as openDestination, pino } from "pino";
import { createIsoTime } from "../lib/iso-time.ts";
import type { Log } from "../lib/log.ts";
import { createLineBatch } from "./line-batch.ts";
import { createRedaction } from "./redaction.ts";

/** Where lines go to. */
export interface LogDestination {
  write(line: string): void;
}

export interface Logger extends Log {
  /**
   * As info(), for facts that are JSON already, an object with at least one member. They pass no redaction, so they
   * come from an allow-list: eventFacts.
   */
  infoJson(facts: string, message: string): void;
  /** Writes out, synchronously, what is still in memory. For the end of the process. */
  flush(): void;
  /** Lines lost because stdout did not take them. */
  dropped(): number;
}

/** Bytes that may wait for a stdout that does not take them; lines beyond are lost rather than memory. */
const maxBufferedBytes = 16 << 20;

/** Lines are written together: a system call for each would cost as much as a tenth of a request. */
const batch = { length: 32 << 10, ms: 100 };

/**
 * The proxy's own log: JSON lines, on stdout unless told otherwise, written in the background.
 * Facts go through redaction, so a secret that somebody logs by mistake does not get out.
 */
export function createLogger(options: {
  readonly level: "debug" | "info" | "warn" | "error" | "silent";
  readonly destination?: LogDestination;
}): Logger {
  const { level } = options;
  const stdout =
    options.destination === undefined
      ? openDestination({ dest: 1, sync: false, maxLength: maxBufferedBytes })
      : undefined;
  // Not left to the destination: it counts the bytes of all that waits anew with each line.
  const lines = stdout && createLineBatch((text) => stdout.write(text), batch);
  let dropped = 0;
  stdout?.on("drop", () => {
    dropped += 1;
  });
  const isoTime = createIsoTime();
  // Stacks name paths of the machine: for debugging only.
  const redact = createRedaction({ stacks: level === "debug" });
  const destination = lines ?? options.destination;
  const hasInfo = level === "debug" || level === "info";
  const time = (): string => `,"time":"${isoTime(Date.now())}"`;
  const logger = pino(
    {
      level,
      base: null,
      timestamp: time,
      // Redaction has described errors already; pino's own serializer would take that for an error and do it again.
      serializers: { err: (described: unknown) => described },
      formatters: { level: (label) => ({ level: label }), log: redact },
    },
    destination,
  );
  return {
    debug: (facts, message) => {
      logger.debug(facts, message);
    },
    info: (facts, message) => {
      logger.info(facts, message);
    },
    warn: (facts, message) => {
      logger.warn(facts, message);
    },
    error: (facts, message) => {
      logger.error(facts, message);
    },
    infoJson: (facts, message) => {
      if (!hasInfo) return;
      destination?.write(`{"level":"info"${time()},${facts.slice(1, -1)},"msg":${JSON.stringify(message)}}\n`);
    },
    flush: () => {
      lines?.flush();
      stdout?.flushSync();
    },
    dropped: () => dropped,
  };
}

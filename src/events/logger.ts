import { pino } from "pino";
import { createIsoTime } from "../lib/dates.ts";
import type { Log } from "../lib/log.ts";
import { createRedaction } from "./redaction.ts";

/** Where lines go to. */
export interface LogDestination {
  write(line: string): void;
  /** Writes out what is still in memory, in bounded time. */
  flush?(): void;
  /** Lines that were lost. */
  dropped?(): number;
}

export interface Logger extends Log {
  /**
   * As info(), for facts that are JSON already, an object with at least one member. They pass no redaction, so they
   * come from an allow-list: eventFacts.
   */
  infoJson(facts: string, message: string): void;
  /** Writes out, synchronously and in bounded time, what is still in memory. For the end of the process. */
  flush(): void;
  /** Lines lost because nobody took them. */
  dropped(): number;
}

/**
 * The proxy's own log: JSON lines.
 * Facts go through redaction, so a secret that somebody logs by mistake does not get out.
 */
export function createLogger(options: {
  readonly level: "debug" | "info" | "warn" | "error" | "silent";
  readonly destination: LogDestination;
}): Logger {
  const { level, destination } = options;
  const isoTime = createIsoTime();
  // Stacks name paths of the machine: for debugging only.
  const redact = createRedaction({ stacks: level === "debug" });
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
    {
      write: (line: string) => {
        destination.write(line);
      },
    },
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
      destination.write(`{"level":"info"${time()},${facts.slice(1, -1)},"msg":${JSON.stringify(message)}}\n`);
    },
    flush: () => destination.flush?.(),
    dropped: () => destination.dropped?.() ?? 0,
  };
}

/** Lines on their way to a slow writer, which gets them many at a time. */
export interface LineBatch {
  write(line: string): void;
  /** Hands on what waits, now. */
  flush(): void;
}

/**
 * Gathers lines until there are `length` characters of them, or until the first has waited `ms`.
 * @param write takes whole lines, and is called from a timer as well: it must not throw
 */
export function createLineBatch(
  write: (lines: string) => void,
  { length, ms }: { readonly length: number; readonly ms: number },
): LineBatch {
  // A rope, which V8 makes flat once, when it is written.
  let lines = "";
  let timer: NodeJS.Timeout | undefined;

  function flush(): void {
    clearTimeout(timer);
    timer = undefined;
    const batch = lines;
    lines = "";
    if (batch !== "") write(batch);
  }

  return {
    write(line) {
      lines += line;
      if (lines.length >= length) flush();
      else timer ??= setTimeout(flush, ms).unref();
    },
    flush,
  };
}

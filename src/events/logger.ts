import { pino } from "pino";
import { createIsoTime } from "../lib/dates.ts";
import type { Log, LogLevel } from "../lib/log.ts";
import { createRedaction } from "./redaction.ts";

/** The destination of log lines. */
export interface LogDestination {
  write(line: string): void;
  /** Writes what is still in memory, in bounded time. */
  flush?(): void;
  /** Lines that were lost. */
  dropped?(): number;
}

export interface Logger extends Log {
  /**
   * As info(), for facts that are already JSON: an object with at least one member. They are not redacted, so they must
   * come from an allow-list: eventFacts.
   */
  infoJson(facts: string, message: string): void;
  /** Changes the level from the next line on. */
  setLevel(level: LogLevel): void;
  /** Writes, synchronously and in bounded time, what is still in memory. For the end of the process. */
  flush(): void;
  /** Lines lost because the reader was too slow. */
  dropped(): number;
}

/** The proxy's own log: JSON lines. Facts are redacted, so a secret that is logged by mistake does not leak. */
export function createLogger(options: { readonly level: LogLevel; readonly destination: LogDestination }): Logger {
  const { destination } = options;
  let { level } = options;
  const isoTime = createIsoTime();
  // Stacks contain paths of the machine: for debugging only.
  const withStacks = createRedaction({ stacks: true });
  const withoutStacks = createRedaction({ stacks: false });
  const redact: typeof withStacks = (facts) => (level === "debug" ? withStacks : withoutStacks)(facts);
  const time = (): string => `,"time":"${isoTime(Date.now())}"`;
  const logger = pino(
    {
      level,
      base: null,
      timestamp: time,
      // Redaction has serialized errors already; pino's own serializer would take the result for an error and serialize
      // it again.
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
      if (level !== "debug" && level !== "info") return;
      destination.write(`{"level":"info"${time()},${facts.slice(1, -1)},"msg":${JSON.stringify(message)}}\n`);
    },
    setLevel(next) {
      level = next;
      logger.level = next;
    },
    flush: () => destination.flush?.(),
    dropped: () => destination.dropped?.() ?? 0,
  };
}

/** Lines for a slow writer, which gets many at a time. */
export interface LineBatch {
  write(line: string): void;
  /** Passes on the waiting lines now. */
  flush(): void;
}

/**
 * Collects lines until there are `length` characters of them, or until the first has waited `ms`.
 * @param write takes whole lines, and is also called from a timer: it must not throw
 */
export function createLineBatch(
  write: (lines: string) => void,
  { length, ms }: { readonly length: number; readonly ms: number },
): LineBatch {
  // A rope, which V8 flattens once, when it is written.
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

/** The least that is logged: lines of this level and those behind it. */
export const logLevels = ["debug", "info", "warn", "error", "silent"] as const;

export type LogLevel = (typeof logLevels)[number];

/**
 * The logger interface: facts first, then a fixed message. Pino's loggers have this interface.
 *
 * Readers filter by facts; values never go into the message, so equal events have equal messages.
 */
export interface Log {
  debug(facts: object, message: string): void;
  info(facts: object, message: string): void;
  warn(facts: object, message: string): void;
  error(facts: object, message: string): void;
}

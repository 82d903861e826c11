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

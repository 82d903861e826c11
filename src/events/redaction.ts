import { isSecretKey, scrubSecrets } from "../lib/secret-text.ts";

const hidden = "[redacted]";
const maxDepth = 6;
const maxMessageLength = 500;
const maxKnownKeys = 1000;

type Facts = Record<string, unknown>;

/**
 * Creates a function that redacts facts for a log: values under secret keys, and text that looks like a secret, are
 * replaced at any depth; errors are reduced to type, code, message, causes and, with `stacks`, the stack. If there is
 * nothing to hide it returns the same object. This is the second line of defence: callers choose the facts they log,
 * and no secret should be among them.
 */
export function createRedaction({ stacks }: { readonly stacks: boolean }): (facts: Facts) => Facts {
  /** The same few keys recur in every line, and looking one up is cheaper than matching two patterns. */
  const knownKeys = new Map<string, boolean>();

  function isSecret(key: string): boolean {
    const known = knownKeys.get(key);
    if (known !== undefined) return known;
    const secret = isSecretKey(key);
    if (knownKeys.size < maxKnownKeys) knownKeys.set(key, secret);
    return secret;
  }

  function redactRecord(record: Facts, depth: number): Facts {
    let copy: Facts | undefined;
    for (const key of Object.keys(record)) {
      const value = record[key];
      const shown = isSecret(key) ? hidden : redactValue(value, depth);
      if (shown !== value) {
        copy ??= { ...record };
        copy[key] = shown;
      }
    }
    return copy ?? record;
  }

  function redactValue(value: unknown, depth: number): unknown {
    // A provider may quote a key in its message, which is among the facts.
    if (typeof value === "string") return scrubSecrets(value);
    if (typeof value !== "object" || value === null) return value;
    if (depth >= maxDepth) return "[too deep]";
    if (value instanceof Error) return describeError(value, depth);
    if (Array.isArray(value)) return value.map((item: unknown) => redactValue(item, depth + 1));
    return redactRecord(value as Facts, depth + 1);
  }

  function describeError(error: Error, depth: number): Facts {
    const { name, message, cause } = error;
    const code: unknown = "code" in error ? error.code : undefined;
    return {
      type: name,
      ...(typeof code === "string" || typeof code === "number" ? { code } : {}),
      message: scrubSecrets(message).slice(0, maxMessageLength),
      ...(cause === undefined ? {} : { cause: redactValue(cause, depth + 1) }),
      ...(stacks && error.stack !== undefined ? { stack: scrubSecrets(error.stack) } : {}),
    };
  }

  return (facts) => redactRecord(facts, 0);
}

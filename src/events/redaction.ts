const hidden = "[redacted]";
const maxDepth = 6;
const maxMessageLength = 500;
const maxKnownKeys = 1000;

/** Key names whose values are secrets, in any case and style. Not the plural `tokens`, which are what is billed. */
const secretKey =
  /authorization|cookie|passw(?:or)?d|passphrase|secret|credential|api[-_]?key|private[-_]?key|(?:^|[-_])token$/i;
const secretCamelKey = /[a-z]Token$/;

/**
 * Secrets that give themselves away inside a text: bearer headers, API keys, JWTs, passwords in URLs. Clients choose
 * some of these texts, so a JWT is looked for only at the beginning of a word, and a URL's name ends at the first colon.
 */
const secretText =
  /\bBearer\s+[^\s"',;]+|\b(?:sk|ds[prs])[-_][\w-]{8,}|(?<![\w-])(?=[\w-]*\beyJ)[\w-]+\.[\w-]+(?:\.[\w-]*)?|(?<=:\/\/)[^\s/@:]*:[^\s/@]*(?=@)/g;

type Facts = Record<string, unknown>;

/**
 * Makes a function that makes facts fit for a log: values under secret keys are replaced at any depth, and errors are
 * cut down to type, code, message, causes and, with `stacks`, the stack. Where there is nothing to hide it returns the
 * same object. This is the second line: callers name the facts they log, and no secret should be among them.
 */
export function createRedaction({ stacks }: { readonly stacks: boolean }): (facts: Facts) => Facts {
  /** The same few names come with every line, and looking one up is cheaper than two patterns. */
  const knownKeys = new Map<string, boolean>();

  function isSecret(key: string): boolean {
    const known = knownKeys.get(key);
    if (known !== undefined) return known;
    const secret = secretKey.test(key) || secretCamelKey.test(key);
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
      message: scrub(message).slice(0, maxMessageLength),
      ...(cause === undefined ? {} : { cause: redactValue(cause, depth + 1) }),
      ...(stacks && error.stack !== undefined ? { stack: scrub(error.stack) } : {}),
    };
  }

  return (facts) => redactRecord(facts, 0);
}

function scrub(text: string): string {
  return text.replace(secretText, hidden);
}

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

/** The functions that run in Redis: one library, whose name and functions carry the digest of its code. */
export interface FunctionLibrary {
  readonly name: string;
  /** For FUNCTION LOAD. */
  readonly code: string;
  /** The whole name of a function. */
  functionName(name: string): string;
  /** Whether Redis runs it even where its memory is full. */
  isTolerant(name: string): boolean;
}

const prelude = new URL("./prelude.lua", import.meta.url);

/**
 * Puts the parts of all domains together. Two versions of the proxy may run at once during a deploy: each calls its own
 * functions, so that neither replaces the other's.
 *
 * @param parts files in Lua; see prelude.lua for what they may use
 */
export function createLibrary(parts: readonly URL[]): FunctionLibrary {
  const bodies = [prelude, ...parts].map((part) => readFileSync(part, "utf8"));
  const digest = createHash("sha256").update(bodies.join("\n")).digest("hex").slice(0, 12);
  const name = `llmproxy_${digest}`;
  // Each part has a scope of its own: Lua allows 200 local variables in one.
  const [head = "", ...domains] = bodies;
  const code = [
    `#!lua name=${name}`,
    head,
    ...domains.map((body) => `do\n${body}\nend`),
    // One by one: `pairs` is not to be had while a library is loaded.
    ...functionsIn(bodies).map(
      (each) =>
        `redis.register_function{ function_name = '${name}_${each}', callback = fn.${each}, flags = flags.${each} or {} }`,
    ),
  ].join("\n");
  const tolerant = new Set(bodies.flatMap((body) => namesOf(body, /^flags\.(\w+) = \{ 'allow-oom'/gm)));
  return { name, code, functionName: (each) => `${name}_${each}`, isTolerant: (each) => tolerant.has(each) };
}

/** The names behind `function fn.` at the beginning of a line. Throws if one is there twice. */
function functionsIn(bodies: readonly string[]): readonly string[] {
  const names = bodies.flatMap((body) => namesOf(body, /^function fn\.(\w+)/gm));
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw new Error(`the library has two functions ${twice}`);
  return names;
}

function namesOf(body: string, pattern: RegExp): readonly string[] {
  return [...body.matchAll(pattern)].map(([, name = ""]) => name);
}

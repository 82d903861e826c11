import type { FastifyInstance } from "fastify";

/** Says which methods the routes at a path have; none where nothing is there. */
export type AllowedMethods = (path: string) => readonly string[];

/**
 * Remembers all routes that are registered after it. Fastify itself calls a path with another method a path that leads
 * nowhere.
 * @returns a function that takes a path as `routedPath` gives it
 */
export function collectAllowedMethods(app: FastifyInstance): AllowedMethods {
  const byPattern = new Map<string, { readonly steps: readonly string[]; readonly methods: Set<string> }>();
  app.addHook("onRoute", ({ url, method }) => {
    const known = byPattern.get(url) ?? { steps: url.split("/"), methods: new Set() };
    for (const one of typeof method === "string" ? [method] : method) known.methods.add(one);
    byPattern.set(url, known);
  });
  return (path) => {
    const steps = path.split("/");
    const found = new Set<string>();
    for (const { steps: pattern, methods } of byPattern.values()) {
      if (matches(pattern, steps)) for (const method of methods) found.add(method);
    }
    return [...found].sort();
  };
}

/** Whether a path has the steps of a pattern, in which `:name` stands for any step. */
function matches(pattern: readonly string[], steps: readonly string[]): boolean {
  if (steps.length !== pattern.length) return false;
  return pattern.every((part, index) => part === steps[index] || (part.startsWith(":") && steps[index] !== ""));
}

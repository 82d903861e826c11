import type { Log } from "../../lib/log.ts";
import type { AccountProblem } from "../users.ts";

/** What could not be parsed when it was read, by the name of its document. */
export interface Problems {
  report(name: string, ...found: readonly AccountProblem[]): void;
  clear(name: string): void;
  /** What is still wrong, after the documents have been read again. */
  current(renew: (name: string) => Promise<unknown>): Promise<readonly AccountProblem[]>;
}

/** More need not be known by name. */
const maxNames = 100;

export function createProblems(log: Log, message: string): Problems {
  const problems = new Map<string, readonly AccountProblem[]>();
  return {
    report(name, ...found) {
      const isNew = problems.get(name)?.[0]?.reason !== found[0]?.reason;
      if (isNew) for (const problem of found) log.error(problem, message);
      if (problems.has(name) || problems.size < maxNames) problems.set(name, found);
    },
    clear: (name) => void problems.delete(name),
    async current(renew) {
      await Promise.all([...problems.keys()].map(renew));
      return [...problems.values()].flat();
    },
  };
}

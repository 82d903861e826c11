import { hostname } from "node:os";
import { createProcessTable } from "../../src/lib/files/lock-owner.ts";
import type { CommandIo } from "../../src/cli/this-process.ts";

/** What a command did. */
export interface CommandResult {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs a command in this process, as if it had been started in `cwd`. */
export async function runCli(
  run: (argv: readonly string[], io: CommandIo) => Promise<number>,
  argv: readonly string[],
  cwd: string,
  stdin = "",
  env: CommandIo["env"] = {},
): Promise<CommandResult> {
  const [out, err]: [string[], string[]] = [[], []];
  const code = await run(argv, {
    env,
    cwd,
    user: "tester",
    processes: createProcessTable({ pid: process.pid, host: hostname(), exists: () => true }),
    readStdin: () => Promise.resolve(stdin),
    out: (line) => out.push(line),
    async outPieces(pieces) {
      let text = "";
      for await (const piece of pieces) text += piece;
      out.push(...text.split("\n").slice(0, -1));
    },
    err: (line) => err.push(line),
  });
  return { code, out: out.join("\n"), err: err.join("\n") };
}

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { compileSrc, isSource } from "./compiled-src.ts";
import { eventually } from "./eventually.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const cache = join(root, "node_modules", ".cache", "test-server");
const dayMs = 86_400_000;

/** How a process ended: one of the two is null. */
interface ProcessEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** The real program, as `npm start` runs it, in a process of its own. */
export interface ServerProcess {
  /** Where it listens. */
  readonly url: string;
  /** Of the program itself once it listens, also where it runs under another command. */
  readonly pid: number;
  /** Standard output and standard error, line by line. */
  readonly lines: readonly string[];
  /** Resolves once the process is gone and all that it wrote has been read. */
  readonly ended: Promise<ProcessEnd>;
  kill(signal: NodeJS.Signals): void;
  /** Resolves once the program has logged this event. */
  logged(event: string): Promise<void>;
}

export interface ServerStart {
  /** What compiledServer returned. */
  readonly code: string;
  /** Where config.toml is, and what it names. */
  readonly folder: string;
  readonly env?: Readonly<Record<string, string>>;
  /** A command that the program is to run under, such as strace with its arguments. */
  readonly under?: readonly string[];
}

/**
 * The folder of the whole program, compiled. Compiled once for each state of src/, by whichever test comes first; to
 * compile takes longer than most of the tests.
 */
export function compiledServer(): string {
  const src = join(root, "src");
  const files = readdirSync(src, { recursive: true, encoding: "utf8" }).filter(isSource).sort();
  const hash = createHash("sha256");
  for (const file of files)
    hash
      .update(`${file}\0`)
      .update(readFileSync(join(src, file)))
      .update("\0");
  const folder = join(cache, hash.digest("hex").slice(0, 16));
  if (existsSync(folder)) return folder;
  mkdirSync(cache, { recursive: true });
  removeOld();
  const draft = mkdtempSync(join(cache, "draft-"));
  compileSrc(draft, files);
  try {
    renameSync(draft, folder);
  } catch {
    // Another test process has been faster.
    rmSync(draft, { recursive: true, force: true });
  }
  return folder;
}

function removeOld(): void {
  for (const name of readdirSync(cache)) {
    const folder = join(cache, name);
    const { mtimeMs } = statSync(folder, { throwIfNoEntry: false }) ?? { mtimeMs: Infinity };
    if (mtimeMs < Date.now() - dayMs) rmSync(folder, { recursive: true, force: true });
  }
}

/** Starts the program and waits until it listens. Rejects, with all that it said, where it ends before. */
export async function startServerProcess(start: ServerStart): Promise<ServerProcess> {
  const server = spawnServer(start);
  let end: ProcessEnd | undefined;
  void server.ended.then((how) => (end = how));
  await eventually(() => {
    if (server.url === "" && end === undefined) throw new Error(`no sign of a server:\n${server.lines.join("\n")}`);
  }, 20_000);
  if (server.url === "") throw new Error(`the server did not start:\n${server.lines.join("\n")}`);
  return server;
}

/** Starts the program; `url` is "" until it listens. */
export function spawnServer({ code, folder, env = {}, under = [] }: ServerStart): ServerProcess {
  const [command, ...args] = [...under, process.execPath, join(code, "main.js")];
  const child = spawn(command, [...args, "--config", join(folder, "config.toml")], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH: process.env.PATH, ...env },
  });
  const lines: string[] = [];
  let url = "";
  let pid = child.pid ?? 0;
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on("line", (line) => {
      lines.push(line);
      if (eventOf(line) === "listening") ({ url, pid } = JSON.parse(line) as { url: string; pid: number });
    });
  }
  const ended = once(child, "close").then(([exitCode, signal]) => ({ code: exitCode, signal }));
  return {
    get url() {
      return url;
    },
    get pid() {
      return pid;
    },
    lines,
    ended,
    kill(signal) {
      // Of a program that runs under another the other ends with it, but not the other way round.
      if (child.exitCode === null && child.signalCode === null) process.kill(pid, signal);
    },
    logged: (event) =>
      eventually(() => {
        if (!lines.some((line) => eventOf(line) === event))
          throw new Error(`not logged: ${event}\n${lines.join("\n")}`);
      }, 20_000),
  };
}

/** The `event` of a line of JSON; undefined where the line is none. */
function eventOf(line: string): unknown {
  try {
    return (JSON.parse(line) as { event?: unknown }).event;
  } catch {
    return undefined;
  }
}

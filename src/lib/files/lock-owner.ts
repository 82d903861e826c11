import { readFileSync, readlinkSync } from "node:fs";

/** What a lock file says about its owner process. */
export interface LockOwner {
  readonly pid: number;
  readonly host: string;
  /** Identifies the boot and the pid namespace in which `pid` is valid; "" if the platform reveals neither. */
  readonly place: string;
  /** The process's start time in the platform's own format; distinguishes it from a later one with the same pid. */
  readonly startedAt: string;
  /** Unique for each acquisition. */
  readonly token: string;
}

/** Information about processes. */
export interface ProcessTable {
  readonly self: Omit<LockOwner, "token">;
  /** "unknown" if the process runs (or ran) in a place that cannot be seen from here. */
  fate(owner: LockOwner): "alive" | "dead" | "unknown";
}

export interface ProcessTableOptions {
  readonly pid: number;
  readonly host: string;
  /** Whether a process has this pid, as determined by `process.kill(pid, 0)`. */
  readonly exists: (pid: number) => boolean;
  /** Default /proc; only Linux has one. */
  readonly procDir?: string;
}

/** Uses /proc if it exists; elsewhere a pid that exists counts as alive. */
export function createProcessTable({ pid, host, exists, procDir = "/proc" }: ProcessTableOptions): ProcessTable {
  const place = placeOf(procDir);
  return {
    self: { pid, host, place, startedAt: lookUp(procDir, pid)?.startedAt ?? "" },
    fate(owner) {
      if (owner.host !== host || owner.place !== place) return "unknown";
      if (!exists(owner.pid)) return "dead";
      const now = lookUp(procDir, owner.pid);
      if (now === undefined || owner.startedAt === "") return "alive";
      // A killed process stays a zombie until its parent reaps it.
      return now.startedAt === owner.startedAt && !["Z", "X"].includes(now.state) ? "alive" : "dead";
    },
  };
}

/** The owner in a lock file; undefined if it is empty or torn because its creator died. */
export function parseOwner(text: string): LockOwner | undefined {
  try {
    const value = JSON.parse(text) as Partial<LockOwner> | null;
    const { pid, host, place, startedAt, token } = value ?? {};
    if (typeof pid !== "number" || !Number.isSafeInteger(pid) || pid <= 0) return undefined;
    if (typeof host !== "string" || typeof place !== "string") return undefined;
    if (typeof startedAt !== "string" || typeof token !== "string") return undefined;
    return { pid, host, place, startedAt, token };
  } catch {
    return undefined;
  }
}

/** Containers that share a host name have their own pid namespaces, in which the same pid is another process. */
function placeOf(procDir: string): string {
  try {
    const boot = readFileSync(`${procDir}/sys/kernel/random/boot_id`, "utf8").trim();
    return `${boot} ${readlinkSync(`${procDir}/self/ns/pid`)}`;
  } catch {
    return "";
  }
}

function lookUp(procDir: string, pid: number): { readonly state: string; readonly startedAt: string } | undefined {
  try {
    const text = readFileSync(`${procDir}/${pid}/stat`, "utf8");
    // The name in field 2 may contain spaces and parentheses; the state is field 3, the start time field 22.
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    const [state, startedAt] = [fields[0], fields[19]];
    return state === undefined || startedAt === undefined ? undefined : { state, startedAt };
  } catch {
    return undefined;
  }
}

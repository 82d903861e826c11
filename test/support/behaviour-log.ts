import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect } from "vitest";
import {
  type BehaviourLog,
  type BehaviourLogOptions,
  createBehaviourLog,
} from "../../src/events/log-files/behaviour-log.ts";
import { createCapturedLog } from "./captured-log.ts";
import { testEnvelopes } from "./events.ts";
import { createManualClock } from "./manual-clock.ts";

/** A log folder and a clock of its own for each test of the file that calls this; removed afterwards. */
export function useBehaviourLog() {
  const startMs = Date.UTC(2026, 10, 22, 10);
  const state = { root: "", clock: createManualClock(startMs), log: createCapturedLog() };
  let open: BehaviourLog[] = [];

  beforeEach(async () => {
    state.root = await mkdtemp(path.join(tmpdir(), "behaviour-log-"));
    state.clock = createManualClock(startMs);
    state.log = createCapturedLog();
    open = [];
  });

  afterEach(async () => {
    await Promise.all(open.map((behaviour) => behaviour.close()));
    await rm(state.root, { recursive: true, force: true });
  });

  /** Path of a file under logs/users/. */
  const file = (name: string) => path.join(state.root, "users", name);

  function start(changes: Partial<BehaviourLogOptions> = {}): BehaviourLog {
    const behaviour = createBehaviourLog({
      logsDir: state.root,
      // Long enough for the tests to say themselves when to write.
      flushMs: 60_000,
      maxQueued: 1000,
      maxFileBytes: 1 << 20,
      keepDays: 30,
      auditKeepDays: 400,
      dayOf: (at) => new Date(at).toISOString().slice(0, 10),
      envelopes: testEnvelopes(),
      clock: state.clock,
      log: state.log,
      ...changes,
    });
    open.push(behaviour);
    return behaviour;
  }

  /** Puts a file where a user's folder should be, so that nothing can be written there: root may write anywhere. */
  async function block(user: string): Promise<void> {
    await mkdir(file(""), { recursive: true });
    await writeFile(file(user), "in the way");
  }

  /** The trace ids in a file, all of whose lines must be whole. */
  async function traces(name: string): Promise<string[]> {
    const text = await readFile(file(name), "utf8");
    expect(text.endsWith("\n")).toBe(true);
    const lines = text.trimEnd().split("\n");
    return lines.map((line) => (JSON.parse(line) as { trace_id: string }).trace_id);
  }

  return { state, file, start, block, traces };
}

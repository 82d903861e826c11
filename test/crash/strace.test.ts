import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parse } from "smol-toml";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { createSimulator, type Simulator } from "../../src/simulator/server.ts";
import { quotaOf } from "../support/quota.ts";
import { compiledServer, startServerProcess, type ServerProcess } from "../support/server-process.ts";
import { alicePassword, bearer, post, userFile } from "../support/start-proxy.ts";
import { tempDir } from "../support/temp-dir.ts";

/** Whether the kernel lets us trace. Where strace is missing: apt-get install strace. In CI it may not be missing. */
const { status, error: missing } = spawnSync("strace", ["-f", "--seccomp-bpf", "-o", "/dev/null", "true"]);
const canTrace = status === 0 || (missing !== undefined && process.env.CI !== undefined);

const chats = 40;
const journal = "journal/0000000000000001.journal";
const body = { model: "sim-fast", stream: false, messages: [{ role: "user", content: "hi" }] };

/**
 * A system call that fails at the `when`-th time (`4+`: and ever after) in each thread, only for `file` below users/ where
 * one is named. The first fsyncs belong to the start, which would refuse to go on.
 */
type Fault = [call: string, error: string, when: string, durability: string, file: string | undefined];

const faults: Fault[] = [
  ["write", "ENOSPC", "1", "interval", journal],
  ["write", "EIO", "2", "interval", journal],
  ["write", "ENOSPC", "7", "strict", journal],
  ["write", "ENOSPC", "12+", "interval", journal],
  ["fdatasync", "EIO", "1", "interval", undefined],
  ["fdatasync", "EIO", "2", "strict", undefined],
  ["fsync", "EIO", "4", "interval", undefined],
  ["fsync", "ENOSPC", "4+", "strict", undefined],
  ["rename", "ENOSPC", "1", "interval", undefined],
  ["rename", "EIO", "2+", "interval", undefined],
];

describe.skipIf(!canTrace)("a disk that fails under the server", () => {
  let code: string;
  let simulator: Simulator;
  /** A folder in which the server has run and alice has logged in. */
  let prepared: string;
  let token: string;

  beforeAll(async () => {
    if (missing !== undefined) throw missing;
    code = compiledServer();
    simulator = await createSimulator();
    prepared = mkdtempSync(join(tmpdir(), "proxy-faults-"));
    mkdirSync(join(prepared, "users"), { recursive: true });
    writeFileSync(join(prepared, "users", "alice.toml"), userFile("alice", alicePassword));
    configure(prepared, "interval");
    const server = await startServerProcess({ code, folder: prepared, env });
    const answer = await post(`${server.url}/auth/login`, { username: "alice", password: alicePassword });
    token = ((await answer.json()) as { token: string }).token;
    server.kill("SIGTERM");
    await server.ended;
  }, 60_000);

  afterAll(async () => {
    rmSync(prepared, { recursive: true, force: true });
    await simulator.close();
  });

  function configure(folder: string, durability: string): void {
    writeFileSync(
      join(folder, "config.toml"),
      `[server]\nport = 0\n[storage]\ndurability = "${durability}"\nsync_interval_ms = 5\nsnapshot_interval_seconds = 0.01\n` +
        `segment_bytes = 4096\n[rate_limit]\nrequests_per_second = 10000\n` +
        `[[providers]]\nname = "upstream"\nkind = "deepseek"\nbase_url = "${simulator.url}"\nmodels = ["*"]\n`,
    );
  }

  async function start(folder: string, under: readonly string[]): Promise<ServerProcess> {
    const server = await startServerProcess({ code, folder, env, under });
    onTestFinished(async () => {
      server.kill("SIGKILL");
      await server.ended;
    });
    return server;
  }

  it.each(faults)(
    "loses no acknowledged charge where %s fails with %s at time %s, %s",
    async (call, error, when, durability, file) => {
      const folder = tempDir();
      cpSync(prepared, folder, { recursive: true });
      configure(folder, durability);
      const trace = join(folder, "trace");
      const only = file === undefined ? [] : ["-P", join(folder, "users", file)];
      const inject = ["-e", `trace=${call}`, "-e", `inject=${call}:error=${error}:when=${when}`];
      const server = await start(folder, ["strace", "-f", "-qq", "--seccomp-bpf", "-o", trace, ...only, ...inject]);

      const seen = { whole: 0, refused: 0 };
      for (let sent = 0; sent < chats; sent++) {
        const answer = await post(`${server.url}/chat/completions`, body, bearer(token));
        const text = await answer.text();
        if (answer.status === 200) seen.whole++;
        else {
          seen.refused++;
          expect([answer.status, text]).toEqual([503, expect.stringContaining('"storage_unavailable"')]);
          expect(answer.headers.get("retry-after")).toBe("1");
        }
      }
      server.kill("SIGKILL");
      await server.ended;
      expect(readFileSync(trace, "utf8")).toContain("(INJECTED)");
      // Only what keeps charges from being recorded refuses work; a snapshot is tried again.
      if (call === "write" || (call === "fdatasync" && durability === "strict"))
        expect(seen.refused).toBeGreaterThan(0);
      if (call === "rename") expect(seen).toEqual({ whole: chats, refused: 0 });
      for (const name of readdirSync(join(folder, "users")).filter((each) => /^[^.].*\.toml$/.test(each))) {
        expect(Object.keys(parse(readFileSync(join(folder, "users", name), "utf8"))), name).not.toEqual([]);
      }

      const again = await start(folder, []);
      const used = (await quotaOf(again, token)).map((limit) => limit.used);
      expect(used).toEqual([expect.any(Number)]);
      expect(used[0]).toBeGreaterThanOrEqual(seen.whole);
      // What was refused was charged at most once, where its sync failed and its record is there all the same.
      expect(used[0]).toBeLessThanOrEqual(
        seen.whole + (durability === "strict" && call !== "write" ? seen.refused : 0),
      );
    },
  );
});

const env = { DEEPSEEK_API_KEY: "sk-test" };

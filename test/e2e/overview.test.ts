import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { eventually } from "../support/eventually.ts";
import { alicePassword, bearer, skipOverRedis, startProxy, userFile } from "../support/start-proxy.ts";

it("the overview names each part that fails, the journal first", async () => {
  skipOverRedis("REDIS_URL is that of the events");
  let full = false;
  const reason = "the journal could not be written: ENOSPC: no space left on device, write";
  const proxy = await startProxy({
    config: '[events.redis]\nstream = "events"',
    env: { REDIS_URL: "redis://127.0.0.1:1" },
    users: { root: userFile("root", alicePassword, 'roles = ["admin"]\n') },
    backends: ({ ledger }) => ({
      ledger: { ...ledger, health: () => (full ? { ok: false, reason } : { ok: true }) },
    }),
  });
  onTestFinished(() => proxy.dispose());
  const headers = bearer(await proxy.login("root", alicePassword));
  const attention = async () => {
    const response = await fetch(`${proxy.url}/admin/overview`, { headers });
    return ((await response.json()) as { attention: unknown }).attention;
  };
  const redis = { kind: "failing", part: "events.redis", reason: expect.stringContaining("127.0.0.1:1") as string };
  const simulated = { kind: "simulated" };
  await eventually(async () => {
    expect(await attention()).toEqual([redis, simulated]);
  });
  full = true;
  await mkdir(join(proxy.folder, "logs"), { recursive: true });
  await writeFile(join(proxy.folder, "logs", "audit"), "");
  const changed = await fetch(`${proxy.url}/admin/providers/simulator/drain`, { method: "POST", headers });
  expect(changed.status).toBe(503);
  expect(await attention()).toEqual([
    { kind: "failing", part: "journal", reason },
    { kind: "failing", part: "audit log", reason: "EEXIST" },
    redis,
    { kind: "provider_drained", provider: "simulator" },
    simulated,
  ]);
});

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { createClient } from "@redis/client";
import { beforeAll, expect, test } from "vitest";
import { runDoctorCli } from "../../src/cli/doctor-commands.ts";
import { runCli } from "../support/cli.ts";
import { describeWithRedis, useRedis } from "../support/redis-server.ts";
import { tempDir } from "../support/temp-dir.ts";

/** TLS is in test/e2e/forwarding-secured.test.ts. */
describeWithRedis("npm run doctor, about the Redis Stream of events", () => {
  const redis = useRedis();
  beforeAll(async () => {
    const client = await createClient({ url: redis.server().url }).connect();
    await client.set("text", "not a stream");
    await client.sendCommand(["ACL", "SETUSER", "reader", "on", ">secret-of-reader", "~*", "+@all", "-xadd"]);
    await client.sendCommand(["ACL", "SETUSER", "other", "on", ">secret-of-other", "~other:*", "+@all"]);
    client.destroy();
  });

  const url = (login = "") => `redis://${login}127.0.0.1:${redis.server().port}`;

  async function doctor(stream: string, address: string): Promise<string> {
    const folder = tempDir();
    writeFileSync(join(folder, "config.toml"), `[events.redis]\nstream = "${stream}"\n`);
    const { out } = await runCli(runDoctorCli, [], folder, "", { REDIS_URL: address });
    expect(out).not.toContain("secret-of");
    return out;
  }

  test("a stream that events can be added to is ok, and is not made", async () => {
    expect(await doctor("events", url())).toMatch(/^ok {4}Redis Stream events: 127\.0\.0\.1:\d+ answers, and events/m);
    const client = await createClient({ url: url() }).connect();
    expect(await client.exists("events")).toBe(0);
    client.destroy();
  });

  test.each([
    [
      "a wrong password",
      "events",
      () => url("reader:secret-of-nobody@"),
      /WRONGPASS.*\n +fix: check the user and the pass/,
    ],
    [
      "a missing right",
      "events",
      () => url("reader:secret-of-reader@"),
      /may not use XADD .*\n +fix: .*events-out\.md/,
    ],
    ["a key of others", "events", () => url("other:secret-of-other@"), /NOPERM.*\n +fix: .*events-out\.md/],
    ["a key that is none", "text", () => url(), /WRONGTYPE.*\n +fix: name another key/],
    ["TLS where there is none", "events", () => url().replace("redis:", "rediss:"), /\n +fix: .*rediss:\/\//],
    ["nobody there", "events", () => "redis://127.0.0.1:1", /ECONNREFUSED.*\n +fix: check REDIS_URL, the firewall/],
    ["no address", "events", () => "", /environment REDIS_URL: .*\n +fix: set that variable/],
  ])("%s fails, with what to do", { timeout: 60_000 }, async (_name, stream, address, expected) => {
    const out = await doctor(stream, address());
    expect(/^FAIL {2}Redis Stream \w+: (.*\n.*)$/m.exec(out)?.[1]).toMatch(expected);
  });
});

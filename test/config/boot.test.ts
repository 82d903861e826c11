import { describe, expect, it } from "vitest";
import { needsRestart, withBootOf } from "../../src/config/boot.ts";
import { parseConfig } from "../../src/config/load.ts";

describe("what needs a restart", () => {
  it("is known by its path", () => {
    expect(["server.port", "storage.users_dir", "auth.issuer", "quota.timezone"].filter(needsRestart)).toHaveLength(4);
    const live = ["server", "server.cors_origins", "quota.tiers.basic.requests", "providers.deepseek.weight", "x", ""];
    expect(live.filter(needsRestart)).toEqual([]);
  });

  it("keeps its running value in the config that comes into force, and nothing else does", () => {
    const running = parseConfig('[server]\nport = 1\n[auth]\nissuer = "a"\nmax_sessions = 3', "a.toml");
    const next = parseConfig(
      '[server]\nport = 2\ncors_origins = ["https://a.example"]\n[auth]\nissuer = "b"',
      "b.toml",
    );
    const merged = withBootOf(next, running);
    expect(merged).toEqual({
      ...next,
      server: { ...next.server, port: 1 },
      auth: { ...next.auth, issuer: "a" },
    });
    expect(withBootOf(running, running)).toEqual(running);
  });
});

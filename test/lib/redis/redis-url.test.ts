import { describe, expect, it } from "vitest";
import { describeTarget, parseRedisUrl } from "../../../src/lib/redis/redis-url.ts";

describe("REDIS_URL", () => {
  it.each([
    ["redis://localhost", { kind: "single", addresses: [{ host: "localhost", port: 6379 }], tls: false, database: 0 }],
    [
      "redis://:p%40ss@h:1/3",
      { addresses: [{ host: "h", port: 1 }], password: "p@ss", username: undefined, database: 3 },
    ],
    ["rediss://bob:secret@h", { tls: true, username: "bob", password: "secret" }],
    ["redis://bob:a:b@[::1]:7", { addresses: [{ host: "::1", port: 7 }], password: "a:b" }],
    [
      "redis+cluster://a:1,b,c:3",
      { kind: "cluster", addresses: [{ port: 1 }, { host: "b", port: 6379 }, { port: 3 }] },
    ],
    [
      "redis+sentinel://a,b:2/main/1",
      { kind: "sentinel", primary: "main", database: 1, addresses: [{ port: 26_379 }, {}] },
    ],
  ])("%s", (url, expected) => {
    expect(parseRedisUrl(url)).toMatchObject(expected);
  });

  it.each([
    ["", "expected redis://"],
    ["http://h", "expected redis://"],
    ["constructor://h", "expected redis://"],
    ["redis://", "expected a host"],
    ["redis://h:0", "a port from 1 to 65535"],
    ["redis://h:70000", "a port from 1 to 65535"],
    ["redis://h:x", "a port from 1 to 65535"],
    ["redis://a,b", "expected one host"],
    ["redis://h/x", "the number of a database"],
    ["redis+cluster://h/1", "expected no database"],
    ["redis+sentinel://h", "the primary's name"],
    ["redis://u:%zz@h", "expected a password with %"],
    ["redis://[::1", "expected a host"],
    [`redis://${"a".repeat(5000)}`, "expected redis://"],
  ])("refuses %s", (url, message) => {
    expect(() => parseRedisUrl(url)).toThrow(message);
  });

  it("shows no secret", () => {
    expect(describeTarget(parseRedisUrl("redis+sentinel://bob:secret@a,[::1]:2/main"))).toBe(
      "sentinel a:26379,[::1]:2 (main)",
    );
    expect(() => parseRedisUrl("redis://bob:secret@h:x")).toThrow(/^(?!.*secret)/);
  });
});

import { describe, expect, it } from "vitest";
import { ipPrefix } from "../../src/lib/ip-list.ts";

describe("ipPrefix", () => {
  it.each([
    ["203.0.113.7", "203.0.113.7"],
    ["::ffff:203.0.113.7", "203.0.113.7"],
    ["0:0:0:0:0:FFFF:cb00:7107", "203.0.113.7"],
    ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
    ["2001:0DB8:0001:0002:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"],
    ["2001:db8::5", "2001:db8:0:0::/64"],
    ["::1", "0:0:0:0::/64"],
    ["::", "0:0:0:0::/64"],
    ["fe80::1%eth0", "fe80:0:0:0::/64"],
    ["1::", "1:0:0:0::/64"],
    ["::203.0.113.7", "0:0:0:0::/64"],
    ["", ""],
    ["unknown", "unknown"],
    ["x".repeat(1000), "x".repeat(64)],
  ])("of %s is %s", (ip, prefix) => {
    expect(ipPrefix(ip)).toBe(prefix);
  });
});

import { describe, expect, it } from "vitest";
import { createIpList } from "../../src/lib/ip-list.ts";

describe("createIpList", () => {
  it.each([
    ["127.0.0.0/8", "127.0.0.1", true],
    ["127.0.0.0/8", "127.255.255.255", true],
    ["127.0.0.0/8", "128.0.0.0", false],
    ["127.0.0.0/8", "::ffff:127.0.0.1", true],
    ["127.0.0.0/8", "::FFFF:7f00:1", true],
    ["127.0.0.0/8", "0:0:0:0:0:ffff:127.0.0.1", true],
    ["127.0.0.0/8", "::127.0.0.1", false],
    ["10.1.2.3", "10.1.2.3", true],
    ["10.1.2.3", "10.1.2.4", false],
    ["0.0.0.0/0", "8.8.8.8", true],
    ["0.0.0.0/0", "2001:db8::1", false],
    ["::/0", "2001:db8::1", true],
    ["::/0", "8.8.8.8", false],
    ["::/0", "::ffff:8.8.8.8", false],
    ["::1/128", "::1", true],
    ["::1/128", "0:0:0:0:0:0:0:1", true],
    ["::1", "::2", false],
    ["2001:DB8::/32", "2001:db8:ffff::1", true],
    ["fe80::/10", "fe80::1%eth0", true],
    ["::ffff:10.0.0.0/104", "10.200.0.1", true],
    ["::ffff:10.0.0.0/104", "::ffff:10.200.0.1", true],
    ["::ffff:10.0.0.0/104", "11.0.0.1", false],
  ])("of %s and %s says %s", (entry, ip, expected) => {
    expect(createIpList([entry]).has(ip)).toBe(expected);
  });

  it.each(["", "localhost", "127.0.0.1:80", "127.0.0.1 ", "127.1", "0x7f.0.0.1", "1.2.3.4/8", "[::1]", "%", "::1%%"])(
    "holds nothing that is not an address: %j",
    (ip) => {
      expect(createIpList(["0.0.0.0/0", "2001:db8::/32"]).has(ip)).toBe(false);
    },
  );

  it.each([
    "",
    "localhost",
    "10.0.0.0/33",
    "10.0.0.0/",
    "10.0.0.0/-1",
    "10.0.0.0/1e1",
    "10.0.0.0/8/8",
    "::1/129",
    "::ffff:1.2.3.4/64",
  ])("refuses the entry %j by name", (entry) => {
    expect(() => createIpList([entry])).toThrow(`not an address or a network: ${entry}`);
  });

  it("holds what any entry holds, and nothing without entries", () => {
    const list = createIpList(["10.0.0.0/8", "::1"]);
    expect([list.has("10.9.9.9"), list.has("::1"), list.has("::2")]).toEqual([true, true, false]);
    expect(createIpList([]).has("127.0.0.1")).toBe(false);
  });
});

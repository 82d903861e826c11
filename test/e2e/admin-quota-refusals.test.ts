import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { startAdminApi } from "../support/admin-api.ts";
import { skipOverRedis } from "../support/start-proxy.ts";

const path = "/admin/users/alice/quota";

const wrongOrders: readonly (readonly [act: string, body: object, param: string])[] = [
  ["grant", { metric: "requests", per: "month", amount: 1 }, "reason"],
  ["grant", { metric: "requests", per: "month", amount: 1, reason: " " }, "reason"],
  ["grant", { metric: "requests", per: "month", amount: 0, reason: "r" }, "amount"],
  ["grant", { metric: "requests", per: "month", amount: -1, reason: "r" }, "amount"],
  ["grant", { metric: "requests", per: "month", amount: 1.5, reason: "r" }, "amount"],
  ["grant", { metric: "cost", per: "month", amount: "0.0000000001", reason: "r" }, "amount"],
  ["grant", { metric: "cost", per: "month", amount: "9007199.254740991", reason: "r" }, "amount"],
  ["grant", { metric: "cost", per: "month", amount: 9007199.25, reason: "r" }, "amount"],
  ["grant", { metric: "requests", per: "month", amount: 1, currency: "CNY", reason: "r" }, "currency"],
  ["grant", { metric: "requests", per: "month", amount: 1, until: "2001-01-01T00:00:00Z", reason: "r" }, "until"],
  ["grant", { metric: "requests", per: "month", amount: 1, until: "2099-01-01", reason: "r" }, "until"],
  ["grant", { metric: "requests", per: "year", amount: 1, reason: "r" }, "per"],
  ["grant", { metric: "tokens", per: "month", amount: 1, reason: "r" }, "metric"],
  ["grant", { metric: "requests", per: "month", amount: 1, reason: "r", who: "alice" }, "who"],
  ["adjust", { requests: 1 }, "reason"],
  ["adjust", { reason: "r" }, "requests"],
  ["adjust", { requests: 0.5, reason: "r" }, "requests"],
  ["adjust", { tokens: 1e300, reason: "r" }, "tokens"],
  ["adjust", { cost: "1,5", reason: "r" }, "cost"],
  ["adjust", { cost: 1e-10, reason: "r" }, "cost"],
  ["adjust", { cost: 1e9, reason: "r" }, "cost"],
  ["adjust", { cost: 1, currency: "yuan", reason: "r" }, "currency"],
  ["adjust", { request: 1, reason: "r" }, "request"],
  ["reset", { per: "hour", reason: "r" }, "per"],
  ["reset", { per: "day" }, "reason"],
];

describe("an administrator who changes a quota", () => {
  it("is told what is wrong with an order, and nothing changes", async () => {
    const { post: ask, proxy, audits } = await startAdminApi();
    const file = join(proxy.folder, "users", "alice.toml");
    const before = await readFile(file, "utf8");
    for (const [act, body, param] of wrongOrders) {
      const { status, body: answer } = await ask(`${path}/${act}`, body);
      const order = `${act} ${JSON.stringify(body)}`;
      expect({ order, status, code: answer.error?.code, param: answer.error?.param }).toEqual({
        order,
        status: 400,
        code: "invalid_request",
        param,
      });
    }
    expect(await readFile(file, "utf8")).toBe(before);
    expect(await audits()).toEqual([]);
  });

  it("reads in the message what would be right, where an amount or a time is not", async () => {
    const { post: ask, as } = await startAdminApi();
    const money = "expected an amount of at most 9007199 with at most 9 decimal places";
    const grant = { metric: "cost", per: "month", reason: "r" };
    for (const [act, body, message] of [
      ["adjust", { cost: 1e9, reason: "r" }, `cost: ${money}`],
      ["grant", { ...grant, amount: "9007199.254740992" }, `amount: ${money} above 0`],
      ["grant", { ...grant, amount: 9007199.25 }, `amount: ${money} above 0`],
      [
        "grant",
        { ...grant, amount: 1, until: "tomorrow" },
        "until: expected a date and time with an offset, such as 2026-12-31T18:00:00+08:00",
      ],
    ] as const) {
      expect((await ask(`${path}/${act}`, body)).body.error.message).toBe(message);
    }
    const patch = { default_group: "@lab" };
    expect((await as("boss", "PATCH", "/admin/users/alice", patch)).body.error.message).toBe(
      "default_group: expected lower-case letters, digits, - and _",
    );
  });

  it("is told that there is no such user", async () => {
    const { post: ask } = await startAdminApi();
    const orders = {
      grant: { metric: "requests", per: "month", amount: 1, reason: "r" },
      adjust: { requests: 1, reason: "r" },
      reset: { per: "day", reason: "r" },
    };
    for (const [act, body] of Object.entries(orders)) {
      expect(await ask(`/admin/users/nobody/quota/${act}`, body)).toMatchObject({ status: 404 });
      expect(await ask(`/admin/users/..%2fx/quota/${act}`, body)).toMatchObject({ status: 400 });
    }
  });

  it("cannot grant to a user whose file is broken, and the file stays as it is", async () => {
    skipOverRedis("is about what stands in a file");
    const { post: ask, proxy } = await startAdminApi();
    const file = join(proxy.folder, "users", "alice.toml");
    await writeFile(file, "username = \n");
    const grant = { metric: "requests", per: "month", amount: 1, reason: "r" };
    expect(await ask(`${path}/grant`, grant)).toMatchObject({ status: 409 });
    expect(await readFile(file, "utf8")).toBe("username = \n");
  });
});

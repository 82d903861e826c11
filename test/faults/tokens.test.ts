import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ask, statusOf } from "../support/accounts.ts";
import { startProxy, type RunningProxy } from "../support/start-proxy.ts";

const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

describe("I6: an access token has one text", () => {
  let proxy: RunningProxy;
  let token: string;

  beforeAll(async () => {
    proxy = await startProxy();
    token = await proxy.login();
  });

  afterAll(() => proxy.dispose());

  it("and no other whose signature decodes to the same bytes", async () => {
    const last = digits.indexOf(token.at(-1) ?? "");
    // The last two bits of 43 characters carry nothing.
    const twins = digits.split("").filter((_, index) => index >> 2 === last >> 2 && index !== last);
    expect(twins).toHaveLength(3);
    const [header = "", payload = "", signature = ""] = token.split(".");
    const texts = [
      ...twins.map((digit) => token.slice(0, -1) + digit),
      `${token}=`,
      `${header}.${payload}.${signature.replaceAll("-", "+").replaceAll("_", "/")}+`.replace(/\+$/, "="),
      `${header}.${payload}.${signature.slice(0, 9)}*${signature.slice(9)}`,
      `${header}=.${payload}.${signature}`,
      `${header}.${payload}==.${signature}`,
      `${header}.${payload}.${signature}.`,
    ];
    for (const text of texts) {
      expect(await ask(proxy, "GET /auth/quota", text)).toMatchObject({
        status: 401,
        body: { error: { code: "invalid_token" } },
      });
    }
    expect(await statusOf(proxy, token)).toBe(200);
  });
});

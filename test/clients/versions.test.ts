import { readFileSync } from "node:fs";
import { afterEach, describe, expect, it } from "vitest";
import { clientVersion, createClient, type VersionMismatch } from "../../clients/typescript/src/index.ts";
import { versionMismatch } from "../../clients/typescript/src/version.ts";
import { version } from "../../src/version.ts";
import { alicePassword, startProxy, type RunningProxy } from "../support/start-proxy.ts";

const packages = new URL("../../clients/typescript/package.json", import.meta.url);

describe("the versions of client and proxy", () => {
  it("fit each other in this repository", () => {
    expect((JSON.parse(readFileSync(packages, "utf8")) as { readonly version: string }).version).toBe(clientVersion);
    expect(versionMismatch(version)).toBeUndefined();
  });

  it.each([
    ["0.0.9", "server"],
    ["0.1.0", undefined],
    ["0.1.99", undefined],
    ["0.1.0-rc.1+build", undefined],
    ["0.2.0", undefined],
    ["0.3.0", "client"],
    ["0.10.0", "client"],
    ["1.0.0", "client"],
    ["", undefined],
    ["1.0", undefined],
    ["1.0.0x", undefined],
    ["nginx", undefined],
  ])("%s: %s is behind", (server, behind) => {
    expect(versionMismatch(server)?.behind).toBe(behind);
  });

  it("say what to do", () => {
    expect(versionMismatch("0.3.0")?.message).toBe(
      "The proxy is 0.3.0, and deepseek-proxy-client 0.2.0 was made for proxies from 0.1.0 on, below 0.3.0: update the client.",
    );
  });
});

describe("a client and a proxy whose versions differ", () => {
  let proxy: RunningProxy | undefined;

  afterEach(async () => {
    await proxy?.dispose();
    proxy = undefined;
  });

  const saying =
    (said: string): typeof globalThis.fetch =>
    async (...request) => {
      const response = await fetch(...request);
      expect(response.headers.get("x-proxy-version")).toBe(version);
      const headers = new Headers(response.headers);
      headers.set("x-proxy-version", said);
      return new Response(response.body, { status: response.status, headers });
    };

  it("say so once, and go on", async () => {
    proxy = await startProxy();
    const told: VersionMismatch[] = [];
    const access = { baseUrl: proxy.url, username: "alice", password: alicePassword };
    const onVersionMismatch = (mismatch: VersionMismatch) => told.push(mismatch);
    const client = createClient({ ...access, fetch: saying("0.3.0"), onVersionMismatch });
    await client.quota();
    await client.models();
    expect(told).toMatchObject([{ behind: "client", serverVersion: "0.3.0", clientVersion }]);
    await createClient({ ...access, fetch: saying(version), onVersionMismatch }).quota();
    expect(told).toHaveLength(1);
    // Errors say it as well, those of the chats included.
    for (const path of ["/v1/chat/completions", "/nowhere", "/%"]) {
      expect((await fetch(proxy.url + path)).headers.get("x-proxy-version")).toBe(version);
    }
  });
});

import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import type { AddressInfo, Socket } from "node:net";
import { join } from "node:path";
import { createServer as createTlsServer } from "node:tls";
import { buildConnector } from "undici";
import { describe, expect, it, onTestFinished } from "vitest";
import { throughProxy } from "../../src/providers/forward-proxy.ts";
import { startAdminApi } from "../support/admin-api.ts";
import { makeCertificate } from "../support/certificate.ts";
import { type ForwardProxy, proxyCredentials, startForwardProxy } from "../support/forward-proxy.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";
import { openStream } from "../support/sse-client.ts";
import { bearer, post, type RunningProxy } from "../support/start-proxy.ts";
import { tempDir } from "../support/temp-dir.ts";

describe("a provider behind a forward proxy", () => {
  async function start(upstream: ScriptedUpstream, forward: ForwardProxy, more = "") {
    const { port } = new URL(upstream.url);
    return startAdminApi({
      // No resolver knows that name: the forward proxy does.
      upstreamUrl: `http://provider.invalid:${port}`,
      config: `forward_proxy_url = "${forward.url}"\n${more}`,
      configFile: true,
    });
  }

  async function chat(proxy: RunningProxy) {
    const body = { model: "flash", stream: true, messages: [{ role: "user", content: "hi" }] };
    return openStream(`${proxy.url}/chat/completions`, { headers: bearer(await proxy.login()), body });
  }

  async function answerOne(upstream: ScriptedUpstream): Promise<void> {
    for (;;) {
      const call = await upstream.next();
      if (call.method !== "POST") call.respond(200, { data: [] });
      else {
        await call.delta("Hello");
        await call.finish();
        return;
      }
    }
  }

  async function startUpstream(): Promise<ScriptedUpstream> {
    const upstream = await startScriptedUpstream();
    onTestFinished(() => upstream.close());
    return upstream;
  }

  it("streams through it, and through another one after a reload", async () => {
    const upstream = await startUpstream();
    const { port } = new URL(upstream.url);
    const [first, second] = [await startForwardProxy(Number(port)), await startForwardProxy(Number(port))];
    const { proxy, ...admin } = await start(upstream, first);
    const stream = chat(proxy);
    await answerOne(upstream);
    expect((await (await stream).rest()).at(-1)?.data).toBe("[DONE]");
    expect(new Set(first.asked)).toEqual(new Set([`provider.invalid:${port} ${proxyCredentials}`]));

    const config = await admin.get("/admin/config");
    expect(JSON.stringify(config.body)).toContain(`"forward_proxy_url":"http://***@127.0.0.1:${first.port}/"`);
    const text = proxy.configText(`forward_proxy_url = "${second.url}"\n`);
    await writeFile(join(proxy.folder, "config.toml"), text);
    expect(await admin.post("/admin/config/reload")).toMatchObject({ status: 200 });
    const next = chat(proxy);
    await answerOne(upstream);
    expect((await (await next).rest()).at(-1)?.data).toBe("[DONE]");
    expect(second.asked.length).toBeGreaterThan(0);
    expect(JSON.stringify(proxy.logLines)).not.toContain("p%40ss");
  });

  it.each([
    [407, "upstream_error", /the forward proxy answered CONNECT with 407/],
    ["none", "upstream_timeout", /the forward proxy opened no tunnel within 100 ms/],
  ] as const)("is unreachable where that answers %s", async (answer, code, words) => {
    const upstream = await startUpstream();
    const forward = await startForwardProxy(0, answer);
    const { proxy } = await start(upstream, forward, "timeouts = { connect_seconds = 0.1 }\n[retry]\nattempts = 1\n");
    const body = { model: "flash", messages: [{ role: "user", content: "hi" }] };
    const response = await post(`${proxy.url}/chat/completions`, body, bearer(await proxy.login()));
    expect(await response.json()).toMatchObject({ error: { code } });
    expect(proxy.logLines.join("\n")).toMatch(words);
  });
});

it("speaks TLS with the provider, not with the forward proxy", async () => {
  const { certificate, key } = makeCertificate(tempDir());
  const cert = readFileSync(certificate);
  const server = createTlsServer({ cert, key: readFileSync(key) }, (socket) => socket.end("hello"));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.close();
  });
  const forward = await startForwardProxy((server.address() as AddressInfo).port);
  const connector = throughProxy(new URL(forward.url), buildConnector({ ca: cert }), 5000);
  const socket = await new Promise<Socket>((resolve, reject) => {
    connector({ hostname: "127.0.0.1", host: "127.0.0.1", protocol: "https:", port: "" }, (error, opened) => {
      if (error === null) resolve(opened);
      else reject(error);
    });
  });
  const said: Buffer[] = [];
  for await (const bytes of socket) said.push(bytes as Buffer);
  expect(Buffer.concat(said).toString()).toBe("hello");
  expect(forward.asked).toEqual([`127.0.0.1:443 ${proxyCredentials}`]);
});

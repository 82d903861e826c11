import { afterEach, describe, expect, it, onTestFinished } from "vitest";
import { closeAll } from "../support/dispatch.ts";
import { startScriptedUpstream } from "../support/scripted-upstream.ts";
import { openStream } from "../support/sse-client.ts";
import { bearer, startProxy } from "../support/start-proxy.ts";

const messages = [{ role: "user", content: "hi" }];

async function startWith(lines: string) {
  const upstream = await startScriptedUpstream();
  onTestFinished(() => upstream.close());
  const proxy = await startProxy({
    config: `[[providers]]
name = "upstream"
kind = "openai"
api_key_env = "OPENAI_API_KEY"
base_url = "${upstream.url}"
models = ["*"]
${lines}`,
    env: { OPENAI_API_KEY: "sk-test" },
  });
  onTestFinished(() => proxy.dispose());
  const headers = bearer(await proxy.login());
  const ask = (body: object, path = "/chat/completions") =>
    openStream(`${proxy.url}${path}`, { headers, body: { model: "m", messages, ...body } });
  return { upstream, ask };
}

describe("A7: a provider that doesn't take stream_options", () => {
  afterEach(closeAll);

  it.each([
    ["none", {}],
    ["the wish for usage", { stream_options: { include_usage: true } }],
    ["others", { stream_options: { include_obfuscation: false } }],
  ])("is never sent them where the config says so, and the client has %s", async (_, options) => {
    const { upstream, ask } = await startWith("stream_options = false");
    for (const stream of [true, false]) {
      const asking = ask({ stream, ...options, n: 1 });
      const call = await upstream.next();
      expect(call.body).toEqual({ model: "m", messages, stream: true, n: 1 });
      await call.delta("a");
      await call.finish();
      const client = await asking;
      await client.ended;
      expect(client.status).toBe(200);
    }
  });

  it("is sent them by default", async () => {
    const { upstream, ask } = await startWith("");
    const asking = ask({ stream: true });
    const call = await upstream.next();
    expect(call.body).toMatchObject({ stream_options: { include_usage: true } });
    await call.finish();
    await (
      await asking
    ).ended;
  });
});

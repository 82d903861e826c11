import { describe, expect, it, onTestFinished } from "vitest";
import { eventually } from "../support/eventually.ts";
import { startScriptedUpstream, type ScriptedUpstream } from "../support/scripted-upstream.ts";
import { openStream } from "../support/sse-client.ts";
import { bearer, startProxy } from "../support/start-proxy.ts";

/** Long enough that no test waits for it. */
const never = 600;

/** A proxy with the providers "first" and "second", each with times of its own. */
async function start(times: { own: number; first?: string; second?: string }) {
  const providers: ScriptedUpstream[] = [];
  for (let i = 0; i < 2; i++) {
    const upstream = await startScriptedUpstream();
    onTestFinished(() => upstream.close());
    providers.push(upstream);
  }
  const [first, second] = providers as [ScriptedUpstream, ScriptedUpstream];
  const section = (name: string, url: string, priority: number, own = ""): string =>
    `[[providers]]\nname = "${name}"\nkind = "deepseek"\nbase_url = "${url}"\nmodels = ["*"]\npriority = ${priority}\ntimeouts = { ${own} }\n`;
  const proxy = await startProxy({
    env: { DEEPSEEK_API_KEY: "sk-test" },
    config: `[timeouts]\nheartbeat_seconds = ${times.own}\nstalled_reader_seconds = ${times.own}\n${section("first", first.url, 0, times.first)}${section("second", second.url, 1, times.second)}`,
  });
  onTestFinished(() => proxy.dispose());
  const headers = bearer(await proxy.login());
  const body = { model: "m", stream: true, messages: [{ role: "user", content: "hi" }] };
  const ask = () => openStream(`${proxy.url}/chat/completions`, { headers, body });
  return { proxy, first, second, ask };
}

const beats = (seconds: number): string => `heartbeat_seconds = ${seconds}`;

describe("the heartbeat of a stream", () => {
  it("is the one of the provider that is asked, before its first event and after", async () => {
    const { first, ask } = await start({ own: never, first: beats(0.05) });
    const asking = ask();
    const call = await first.next();
    const client = await asking;
    expect((await client.nextEvent())?.comment).toBe("keep-alive");
    await call.delta("a");
    for (let event = await client.nextEvent(); event?.json === undefined;) event = await client.nextEvent();
    expect((await client.nextEvent())?.comment).toBe("keep-alive");
    await call.finish();
    await client.rest();
  });

  it("is the next provider's once that one is asked", async () => {
    const { first, second, ask } = await start({ own: never, first: beats(never), second: beats(0.05) });
    const asking = ask();
    (await first.next()).respond(500, {});
    const call = await second.next();
    const client = await asking;
    expect((await client.nextEvent())?.comment).toBe("keep-alive");
    await call.delta("a");
    await call.finish();
    expect((await client.rest()).at(-1)?.data).toBe("[DONE]");
  });
});

describe("the time for which a client may stop reading", () => {
  it("is the one of the provider that answers", async () => {
    const { proxy, first, ask } = await start({ own: never, first: "stalled_reader_seconds = 0.2" });
    const asking = ask();
    const call = await first.next();
    await call.delta("a");
    const client = await asking;
    client.pause();
    const big = "x".repeat(1 << 20);
    while (!call.left) {
      await Promise.race([call.delta(big).catch(() => undefined), call.closed]);
      // A turn for the rest: writes to a connection that is gone may fail without one.
      await new Promise(setImmediate);
    }
    await eventually(() => {
      expect(proxy.services.concurrency.inFlight()).toBe(0);
    });
  });
});

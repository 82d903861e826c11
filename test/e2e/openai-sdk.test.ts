import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { startScriptedUpstream } from "../support/scripted-upstream.ts";
import { alicePassword, startProxy, userFile, type RunningProxy } from "../support/start-proxy.ts";
import { usedRequests } from "../support/quota.ts";

const messages = [{ role: "user" as const, content: "Say hello." }];

describe("the official OpenAI SDK, with its baseURL at the proxy", () => {
  let proxy: RunningProxy;
  let token: string;
  let openai: OpenAI;

  beforeAll(async () => {
    proxy = await startProxy({
      users: {
        alice: userFile("alice", alicePassword, "max_parallel = 4\n"),
        poor: userFile("poor", alicePassword).replace("basic", "poor"),
        busy: userFile("busy", alicePassword),
      },
      config:
        "[quota.tiers]\nbasic = { requests = 500 }\npoor = { requests = 1 }\n[concurrency]\nmax_parallel = 1\nmax_wait_ms = 0\n",
    });
    token = await proxy.login();
    openai = sdk(token);
  });

  afterAll(() => proxy.dispose());

  function sdk(apiKey: string, path = "/v1"): OpenAI {
    return new OpenAI({ apiKey, baseURL: `${proxy.url}${path}`, maxRetries: 0 });
  }

  it("streams", async () => {
    const before = await usedRequests(proxy, token);
    const stream = await openai.chat.completions.create({ model: "deepseek-flash", messages, stream: true });
    let text = "";
    let finish: string | null = null;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? "";
      finish = chunk.choices[0]?.finish_reason ?? finish;
    }
    expect(text).not.toBe("");
    expect(finish).toBe("stop");
    expect(await usedRequests(proxy, token)).toBe(before + 1);
  });

  it("collects", async () => {
    const completion = await openai.chat.completions.create({ model: "deepseek-flash", messages });
    expect(completion.object).toBe("chat.completion");
    expect(completion.choices[0]?.message.content).not.toBe("");
    expect(completion.usage?.total_tokens).toBeGreaterThan(0);
  });

  it("works with and without /v1 in its base URL", async () => {
    const completion = await sdk(token, "").chat.completions.create({
      model: "deepseek-flash",
      messages,
      stream: false,
    });
    expect(completion.choices[0]?.finish_reason).toBe("stop");
  });

  it("runs its own stream helper over reasoning and tools", async () => {
    const stream = openai.chat.completions.stream({
      model: "sim-tools",
      messages,
      tools: [{ type: "function", function: { name: "get_weather", parameters: { type: "object", properties: {} } } }],
    });
    const completion = await stream.finalChatCompletion();
    const call = completion.choices[0]?.message.tool_calls?.[0];
    expect(completion.choices[0]?.finish_reason).toBe("tool_calls");
    expect(call?.type === "function" && JSON.parse(call.function.arguments)).toBeTypeOf("object");
  });

  it("runs its own stream helper over reasoning first and a tool's arguments then", async () => {
    const parameters = { type: "object", properties: { city: { type: "string" }, days: { type: "integer" } } };
    const stream = openai.chat.completions.stream({
      model: "deepseek-flash",
      messages: [{ role: "user", content: "What is the weather like?" }],
      tools: [{ type: "function", function: { name: "get_weather", parameters } }],
    });
    let reasoning = "";
    let deltas = "";
    stream.on("chunk", ({ choices: [choice] }) => {
      reasoning += (choice?.delta as { reasoning_content?: string | null } | undefined)?.reasoning_content ?? "";
    });
    stream.on("tool_calls.function.arguments.delta", (event) => (deltas += event.arguments_delta));
    const completion = await stream.finalChatCompletion();
    const call = completion.choices[0]?.message.tool_calls?.[0];
    const args = call?.type === "function" ? call.function.arguments : "";
    expect(reasoning).toContain("simulator");
    expect(JSON.parse(args)).toEqual({ city: "Hangzhou", days: 1 });
    expect(deltas).toBe(args);
    expect(completion.choices[0]?.finish_reason).toBe("tool_calls");
    expect(completion.usage?.completion_tokens_details?.reasoning_tokens).toBeGreaterThan(0);
  });

  it("lists the models", async () => {
    const ids = [];
    for await (const model of openai.models.list()) ids.push(model.id);
    expect(ids).toContain("deepseek-flash");
  });

  it("raises AuthenticationError for a bad token", async () => {
    await expect(sdk("nonsense").models.list()).rejects.toBeInstanceOf(OpenAI.AuthenticationError);
  });

  it("raises a 402 with the quota's figures", async () => {
    const poor = sdk(await proxy.login("poor"));
    await poor.chat.completions.create({ model: "sim-fast", messages });
    const error = await poor.chat.completions
      .create({ model: "sim-fast", messages })
      .catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(OpenAI.APIError);
    expect(error).toMatchObject({
      status: 402,
      code: "quota_exceeded",
      type: "insufficient_quota",
      error: { details: { metric: "requests", used: 1, limit: 1, reset_at: expect.any(String) } },
    });
  });

  it("raises RateLimitError for one chat too many at once", async () => {
    const busy = sdk(await proxy.login("busy"));
    const stream = await busy.chat.completions.create({ model: "sim-slow", messages, stream: true });
    const error = await busy.chat.completions
      .create({ model: "sim-fast", messages })
      .catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(OpenAI.RateLimitError);
    expect(error).toMatchObject({ status: 429, code: "concurrency_exceeded" });
    expect((error as InstanceType<typeof OpenAI.APIError>).headers?.get("retry-after")).toMatch(/^\d+$/);
    stream.controller.abort();
  });

  it("raises NotFoundError for a model that nobody serves", async () => {
    const error = await openai.chat.completions
      .create({ model: "gpt-nope", messages })
      .catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(OpenAI.NotFoundError);
    expect(error).toMatchObject({ code: "model_not_found", param: "model" });
  });

  it("raises APIError with the code of an error event that ends a stream", async () => {
    const stream = openai.chat.completions.stream({ model: "sim-error-event", messages });
    const error = await stream.finalChatCompletion().catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(OpenAI.APIError);
    expect(error).toMatchObject({ code: "upstream_overloaded", type: "api_error" });
  });

  it("raises APIError where the answer breaks off in the middle", async () => {
    const stream = await openai.chat.completions.create({ model: "sim-truncate", messages, stream: true });
    const read = async (): Promise<void> => {
      for await (const chunk of stream) expect(chunk.object).toBe("chat.completion.chunk");
    };
    await expect(read()).rejects.toBeInstanceOf(OpenAI.APIError);
  });
});

describe("the official OpenAI SDK, left to retry as it does by itself", () => {
  /** Asks once through an SDK that would retry twice, of a proxy that asks `attempts` times. */
  async function ask(attempts: number, statuses: readonly number[], stream: boolean) {
    const upstream = await startScriptedUpstream();
    onTestFinished(() => upstream.close());
    const config = `[retry]\nattempts = ${attempts}\nbase_ms = 1\nmax_ms = 1\n[breaker]\nfailures = 100\n`;
    const proxy = await startProxy({ upstreamUrl: upstream.url, config });
    onTestFinished(() => proxy.dispose());
    const openai = new OpenAI({ apiKey: await proxy.login(), baseURL: `${proxy.url}/v1`, maxRetries: 2 });
    const answering = (async () => {
      for (const status of statuses) {
        const call = await upstream.next(20_000);
        if (status === 200) await call.finish();
        else call.respond(status, { error: { message: "no" } });
      }
    })();
    const create = { model: "m", messages, stream } as const;
    const result: unknown = await openai.chat.completions.create(create).catch((reason: unknown) => reason);
    await answering;
    return { result, asked: upstream.received };
  }

  it.each([true, false])("does not retry what the proxy has retried, with stream %s", async (stream) => {
    const { result, asked } = await ask(2, [500, 503], stream);
    expect(result).toMatchObject({ status: 503, code: "upstream_overloaded" });
    expect((result as InstanceType<typeof OpenAI.APIError>).headers?.get("x-should-retry")).toBe("false");
    expect(asked).toBe(2);
  });

  it("retries what the proxy has asked for only once", async () => {
    const { result, asked } = await ask(1, [500, 200], false);
    expect(result).toMatchObject({ object: "chat.completion" });
    expect(asked).toBe(2);
  });

  it("does not retry what is its own fault", async () => {
    const { result, asked } = await ask(1, [400], false);
    expect(result).toBeInstanceOf(OpenAI.BadRequestError);
    expect(asked).toBe(1);
  });
});

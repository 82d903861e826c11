import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
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
      config: "[quota.tiers]\nbasic = { requests = 500 }\npoor = { requests = 1 }\n[concurrency]\nmax_wait_ms = 0\n",
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

  it("raises APIError where the answer breaks off in the middle", async () => {
    const stream = await openai.chat.completions.create({ model: "sim-truncate", messages, stream: true });
    const read = async (): Promise<void> => {
      for await (const chunk of stream) expect(chunk.object).toBe("chat.completion.chunk");
    };
    await expect(read()).rejects.toBeInstanceOf(OpenAI.APIError);
  });
});

import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startProxy, type RunningProxy } from "../support/start-proxy.ts";
import { usedRequests } from "../support/quota.ts";

const tools = [
  {
    type: "function" as const,
    name: "get_weather",
    parameters: { type: "object", properties: { city: { type: "string" } } },
    strict: false,
  },
];

describe("the official OpenAI SDK and the Responses API", () => {
  let proxy: RunningProxy;
  let token: string;
  let openai: OpenAI;

  beforeAll(async () => {
    proxy = await startProxy();
    token = await proxy.login();
    openai = new OpenAI({ apiKey: token, baseURL: `${proxy.url}/v1`, maxRetries: 0 });
  });

  afterAll(() => proxy.dispose());

  it("gets one JSON", async () => {
    const before = await usedRequests(proxy, token);
    const response = await openai.responses.create({ model: "deepseek-flash", input: "Say hello." });
    expect(response.status).toBe("completed");
    expect(response.output_text).toContain("You said");
    expect(response.output.map(({ type }) => type)).toEqual(["reasoning", "message"]);
    expect(response.usage?.output_tokens_details.reasoning_tokens).toBeGreaterThan(0);
    expect(await usedRequests(proxy, token)).toBe(before + 1);
  });

  it.each(["/v1", ""])("streams below %j", async (path) => {
    const client = new OpenAI({ apiKey: token, baseURL: proxy.url + path, maxRetries: 0 });
    const types: string[] = [];
    let text = "";
    const input = [{ role: "user" as const, content: "Say hello." }];
    for await (const event of await client.responses.create({ model: "deepseek-flash", input, stream: true })) {
      types.push(event.type);
      if (event.type === "response.output_text.delta") text += event.delta;
    }
    expect(types[0]).toBe("response.created");
    expect(types.at(-1)).toBe("response.completed");
    expect(text).toContain("You said");
  });

  it("runs its own stream helper over reasoning, text and tools", async () => {
    const input = "What is the weather like?";
    const stream = openai.responses.stream({ model: "deepseek-flash", input, tools });
    const response = await stream.finalResponse();
    expect(response.status).toBe("completed");
    const call = response.output.find((item) => item.type === "function_call");
    expect(JSON.parse(call?.arguments ?? "")).toEqual({ city: "Hangzhou" });

    const second = openai.responses.stream({
      model: "deepseek-flash",
      input: [
        { role: "user", content: input },
        ...(response.output as OpenAI.Responses.ResponseInput),
        { type: "function_call_output", call_id: call?.call_id ?? "", output: "sunny" },
      ],
    });
    expect((await second.finalResponse()).output_text).toBe("The tool returned: sunny");
  });

  it("learns that a response was cut by its length", async () => {
    const stream = openai.responses.stream({ model: "deepseek-flash", input: "Hello", max_output_tokens: 3 });
    const response = await stream.finalResponse();
    expect(response.status).toBe("incomplete");
    expect(response.incomplete_details?.reason).toBe("max_output_tokens");
  });

  it("learns of a failure from the response itself where it streams, and from the status where not", async () => {
    const failed = await openai.responses.stream({ model: "sim-reset", input: "Hello" }).finalResponse();
    expect(failed.status).toBe("failed");
    expect(failed.error).toMatchObject({ code: "server_is_overloaded", proxy_code: "upstream_error" });
    const broken = await openai.responses.stream({ model: "sim-truncate", input: "Hello" }).finalResponse();
    expect(broken.error).toMatchObject({ code: "upstream_truncated" });
    const whole = openai.responses.create({ model: "sim-reset", input: "Hello" });
    await expect(whole).rejects.toMatchObject({ status: 502, code: "upstream_error" });
  });

  it("is told that nothing is kept", async () => {
    const kept = openai.responses.create({ model: "deepseek-flash", input: "Hi", previous_response_id: "resp_1" });
    await expect(kept).rejects.toMatchObject({ status: 400, param: "previous_response_id" });
    await expect(openai.responses.retrieve("resp_1")).rejects.toMatchObject({ status: 404, code: "not_found" });
    await expect(openai.responses.delete("resp_1")).rejects.toMatchObject({ status: 404, code: "not_found" });
  });
});

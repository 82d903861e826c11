// The official SDKs over the packed client and a real proxy: scripts/test-sdks.sh runs this in a folder where all are
// installed. SERVER is the proxy's main.js.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { ChatOpenAI } from "@langchain/openai";
import { generateText, jsonSchema, streamText, tool } from "ai";
import { createProxyFetch } from "deepseek-proxy-client";
import OpenAI from "openai";

const login = { username: "alice", password: "correct horse battery" };
const messages = [{ role: "user", content: "Say hello." }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const weather = { type: "function", function: { name: "get_weather", parameters } };
const folder = mkdtempSync(join(tmpdir(), "sdks-"));
let server;
let baseUrl;
let fetch;

before(async () => {
  mkdirSync(join(folder, "users"));
  const user = `username = "alice"\npassword = "${login.password}"\nquota_tier = "premium"\n`;
  writeFileSync(join(folder, "users", "alice.toml"), user);
  writeFileSync(join(folder, "config.toml"), "[server]\nport = 0\n");
  const options = { stdio: ["ignore", "pipe", "inherit"], env: { PATH: process.env.PATH } };
  server = spawn(process.execPath, [process.env.SERVER, "--config", join(folder, "config.toml")], options);
  baseUrl = await new Promise((resolve, reject) => {
    server.once("close", () => reject(new Error("the proxy did not start")));
    createInterface({ input: server.stdout }).on("line", (line) => {
      if (line.includes('"listening"')) resolve(JSON.parse(line).url);
    });
  });
  fetch = createProxyFetch({ baseUrl, ...login });
});

after(async () => {
  server.kill();
  await once(server, "close");
  rmSync(folder, { recursive: true, force: true });
});

test("openai: stream, JSON, tools, responses", async () => {
  const openai = new OpenAI({ baseURL: `${baseUrl}/v1`, apiKey: "unused", fetch });
  let text = "";
  for await (const chunk of await openai.chat.completions.create({ model: "sim-fast", messages, stream: true })) {
    text += chunk.choices[0]?.delta.content ?? "";
  }
  assert.notEqual(text, "");
  const whole = await openai.chat.completions.create({
    model: "sim-fast",
    messages,
    response_format: { type: "json_object" },
  });
  assert.equal(whole.choices[0].finish_reason, "stop");
  const called = await openai.chat.completions.create({ model: "sim-tools", messages, tools: [weather] });
  assert.equal(called.choices[0].message.tool_calls[0].function.name, "get_weather");
  const response = await openai.responses.create({ model: "deepseek-flash", input: "Say hello." });
  assert.notEqual(response.output_text, "");
});

test("@anthropic-ai/sdk: stream, whole, tools", async () => {
  const anthropic = new Anthropic({ baseURL: `${baseUrl}/anthropic`, apiKey: "unused", fetch });
  const ask = { model: "sim-fast", max_tokens: 100, messages };
  assert.equal((await anthropic.messages.stream(ask).finalMessage()).stop_reason, "end_turn");
  assert.equal((await anthropic.messages.create(ask)).stop_reason, "end_turn");
  const tools = [{ name: "get_weather", input_schema: parameters }];
  const called = await anthropic.messages.create({ ...ask, model: "sim-tools", tools });
  assert.equal(called.stop_reason, "tool_use");
});

test("AI SDK: OpenAI and Anthropic", async () => {
  const openai = createOpenAI({ baseURL: `${baseUrl}/v1`, apiKey: "unused", fetch });
  const anthropic = createAnthropic({ baseURL: `${baseUrl}/anthropic/v1`, apiKey: "unused", fetch });
  for (const model of [openai("sim-fast"), openai.chat("sim-fast"), anthropic("sim-fast")]) {
    assert.notEqual((await generateText({ model, prompt: "Say hello." })).text, "");
    assert.notEqual(await streamText({ model, prompt: "Say hello." }).text, "");
  }
  const tools = { get_weather: tool({ inputSchema: jsonSchema(parameters) }) };
  const { toolCalls } = await generateText({ model: openai.chat("sim-tools"), prompt: "Weather?", tools });
  assert.equal(toolCalls[0].toolName, "get_weather");
});

test("LangChain: whole and streamed", async () => {
  const model = new ChatOpenAI({
    model: "sim-fast",
    apiKey: "unused",
    configuration: { baseURL: `${baseUrl}/v1`, fetch },
  });
  assert.notEqual((await model.invoke("Say hello.")).content, "");
  let text = "";
  for await (const chunk of await model.stream("Say hello.")) text += chunk.content;
  assert.notEqual(text, "");
});

test("a wrong password is the SDK's own error", async () => {
  const wrong = createProxyFetch({ baseUrl, username: "nobody", password: "wrong password" });
  const openai = new OpenAI({ baseURL: `${baseUrl}/v1`, apiKey: "unused", fetch: wrong });
  const refused = openai.chat.completions.create({ model: "sim-fast", messages });
  await assert.rejects(refused, (error) => error instanceof OpenAI.AuthenticationError);
});

import { asRecord, type SimRequest, type ToolSpec } from "./request.ts";

/** A completion before it is written in a wire format. One array element is one token and becomes one chunk. */
export interface Completion {
  readonly reasoning: readonly string[];
  readonly content: readonly string[];
  readonly toolCall: ToolCall | undefined;
  readonly finishReason: string;
}

interface ToolCall {
  readonly id: string;
  readonly name: string;
  /** JSON, in fragments. */
  readonly arguments: readonly string[];
}

/** Token counts as the wire reports them; `completion` includes `reasoning`, `prompt` includes `cached`. */
export interface Usage {
  readonly prompt: number;
  readonly cached: number;
  readonly completion: number;
  readonly reasoning: number;
}

/** Most tokens, so that a model name can't use up all memory. */
const maxCannedTokens = 1_000_000;
const maxToolBytes = 16 << 20;

/** The completion for a request: a fixed function of it, so that tests can predict it. */
export function composeCompletion(request: SimRequest, thinks: boolean): Completion {
  const reasoning = thinks ? splitTokens(reasoningText(request)) : [];
  const tool = toolToCall(request);
  if (tool !== undefined) return limit({ reasoning, content: [], ...callOf(tool, exampleArguments(tool)) }, request);
  const content = splitTokens(untilStop(contentText(request), request.stop));
  return limit({ reasoning, content, toolCall: undefined, finishReason: "stop" }, request);
}

/** A completion of exactly `tokens` tokens that depends on nothing in the request but max_tokens. */
export function cannedCompletion(tokens: number, request: SimRequest): Completion {
  const content = Array.from(
    { length: Math.min(tokens, maxCannedTokens) },
    (_, index) => cannedWords[index % cannedWords.length] ?? "",
  );
  return limit({ reasoning: [], content, toolCall: undefined, finishReason: "stop" }, request);
}

/** A call of the client's first tool, or of `get_weather` if it offers none, with `bytes` more of arguments. */
export function toolCallCompletion(request: SimRequest, bytes = 0): Completion {
  const tool = request.tools[0] ?? weatherTool;
  const args =
    bytes === 0
      ? exampleArguments(tool)
      : { text: "0123456789abcdef".repeat(Math.ceil(Math.min(bytes, maxToolBytes) / 16)) };
  return { reasoning: [], content: [], ...callOf(tool, args) };
}

/** Counts tokens: one per chunk for output, one per 4 bytes of UTF-8 (rounded up) for the prompt. */
export function usageOf(composed: Completion, promptBytes: number): Usage {
  const reasoning = composed.reasoning.length;
  const completion = reasoning + composed.content.length + (composed.toolCall?.arguments.length ?? 0);
  return { prompt: Math.max(1, Math.ceil(promptBytes / 4)), cached: 0, completion, reasoning };
}

const cannedWords = ["One", " chunk", " after", " another", ",", " as", " fast", " as", " asked", ".\n"] as const;
const weatherTool: ToolSpec = { name: "get_weather", properties: { location: { type: "string" } } };

function reasoningText(request: SimRequest): string {
  return isChinese(request.lastText)
    ? "用户发来了一条消息。我是模拟器，没有真正的模型，所以我会说明这一点，并复述收到的内容。"
    : "The user has sent a message. I am a simulator without a model, so I say so and repeat what I was sent.";
}

function contentText(request: SimRequest): string {
  const said = /^[^]{0,200}/u.exec(request.lastText)?.[0] ?? "";
  if (request.json) return JSON.stringify({ simulator: true, you_said: said });
  if (request.lastRole === "tool") return `The tool returned: ${said}`;
  return isChinese(said)
    ? `你好！我是代理内置的模拟器，背后没有真正的模型，也不会产生上游费用。你刚才说：“${said}”。设置 DEEPSEEK_API_KEY 并重启，就会换成真正的 DeepSeek。`
    : `Hello! I am the proxy's built-in simulator: there is no model behind me, and nothing is paid upstream. You said: "${said}". Set DEEPSEEK_API_KEY and restart, and the real DeepSeek answers instead.`;
}

function isChinese(text: string): boolean {
  return /\p{Script=Han}/u.test(text);
}

/** A token is one or two Han characters, or a space and up to six others; joined they give the text again. */
function splitTokens(text: string): readonly string[] {
  return text.match(/\s?\p{Script=Han}{1,2}|\s?[^\s\p{Script=Han}]{1,6}|\s/gu) ?? [];
}

function untilStop(text: string, stops: readonly string[]): string {
  const cuts = stops.map((stop) => text.indexOf(stop)).filter((index) => index >= 0);
  return text.slice(0, Math.min(text.length, ...cuts));
}

/** max_tokens counts reasoning first, as DeepSeek does. */
function limit(completion: Completion, { maxTokens }: SimRequest): Completion {
  if (maxTokens === undefined || usageOf(completion, 0).completion <= maxTokens) return completion;
  const reasoning = completion.reasoning.slice(0, maxTokens);
  const left = maxTokens - reasoning.length;
  const call = completion.toolCall;
  return {
    reasoning,
    content: completion.content.slice(0, left),
    toolCall: call === undefined || left === 0 ? undefined : { ...call, arguments: call.arguments.slice(0, left) },
    finishReason: "length",
  };
}

/** Tools are called when forced, or when the user asks about the weather: enough for a demo to show both cases. */
function toolToCall(request: SimRequest): ToolSpec | undefined {
  if (request.toolChoice === "none" || request.lastRole === "tool") return undefined;
  const asked = request.toolChoice === "forced" || /weather|天气/i.test(request.lastText);
  return asked ? request.tools[0] : undefined;
}

function callOf(tool: ToolSpec, args: unknown): Pick<Completion, "toolCall" | "finishReason"> {
  const json = JSON.stringify(args);
  const pieces = json.length > 4096 ? (json.match(/[^]{1,1024}/g) ?? []) : (json.match(/[^]{1,6}/g) ?? []);
  return {
    toolCall: { id: `call_00_${tool.name}`, name: tool.name, arguments: pieces },
    finishReason: "tool_calls",
  };
}

/** A value for every property of the tool's schema. */
function exampleArguments(tool: ToolSpec): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(tool.properties).map(([name, schema]) => [name, exampleOf(schema)]));
}

function exampleOf(schema: unknown): unknown {
  const { type, enum: values } = asRecord(schema);
  if (Array.isArray(values)) return values[0];
  if (type === "number" || type === "integer") return 1;
  if (type === "boolean") return true;
  if (type === "array") return [];
  if (type === "object") return {};
  return "Hangzhou";
}

import { refuse, RefusedError } from "./refusals.ts";

/** The APIs that generate text. */
export type TextApi = "chat" | "completions" | "messages" | "responses";

/** The fields of a request that the simulator uses; every other field is accepted and ignored. */
export interface SimRequest {
  readonly api: TextApi;
  /** As the client sent it, argument included. */
  readonly model: string;
  /** The model without its argument: "sim-queue" of "sim-queue:500". */
  readonly name: string;
  /** The number after the colon, if there is one. */
  readonly argument: number | undefined;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  readonly hasStreamOptions: boolean;
  readonly thinking: "enabled" | "disabled" | undefined;
  readonly maxTokens: number | undefined;
  readonly stop: readonly string[];
  /** Whether `response_format` asks for a JSON object. */
  readonly json: boolean;
  readonly tools: readonly ToolSpec[];
  readonly toolChoice: "auto" | "none" | "forced";
  /** Text of the last message. */
  readonly lastText: string;
  readonly lastRole: string;
  /** UTF-8 bytes of all messages and tools, the base of the token count. */
  readonly promptBytes: number;
}

/** A function that the client offers. */
export interface ToolSpec {
  readonly name: string;
  /** Property name -> JSON schema. */
  readonly properties: Readonly<Record<string, unknown>>;
}

const maxOutputTokens = 393_216;
const modelPattern = /^([^:]+)(?::(\d{1,9}))?$/;

/**
 * Reads a request. Throws RefusedError with DeepSeek's 400 (syntax, values) or 422 (types).
 * @param beta whether it came to the beta URL, which some features need
 */
export function parseRequest(api: TextApi, body: string, beta: boolean): SimRequest {
  const fields = parseJson(body);
  const model = readModel(fields);
  const messages = readMessages[api](fields, beta);
  const last = asRecord(messages.at(-1));
  if (last.prefix === true && !beta) throw invalidValue(betaOnly("prefix"));
  return {
    api,
    ...model,
    stream: fields.stream === true,
    includeUsage: asRecord(fields.stream_options).include_usage === true,
    hasStreamOptions: fields.stream_options !== undefined,
    thinking: api === "completions" ? "disabled" : thinkingOf(fields),
    maxTokens: maxTokensOf(fields.max_tokens ?? fields.max_completion_tokens ?? fields.max_output_tokens),
    stop: [fields.stop ?? fields.stop_sequences]
      .flat()
      .filter((stop): stop is string => typeof stop === "string" && stop !== ""),
    json: asRecord(fields.response_format ?? asRecord(fields.text).format).type === "json_object",
    tools: toolsOf(fields.tools),
    toolChoice: toolChoiceOf(fields.tool_choice),
    lastText: textOf(last.content),
    lastRole: typeof last.role === "string" ? last.role : "user",
    promptBytes: messages.reduce<number>((sum, message) => sum + bytesOf(message), bytesOf(fields.tools)),
  };
}

/** A model's name and its argument. */
export function readModel({ model }: Readonly<Record<string, unknown>>) {
  if (typeof model !== "string") throw invalidType("missing field `model`");
  const [, name = model, argument] = modelPattern.exec(model) ?? [];
  return { model, name, argument: argument === undefined ? undefined : Number(argument) };
}

type Fields = Readonly<Record<string, unknown>>;

/** How each API writes the conversation. */
const readMessages: Readonly<Record<TextApi, (fields: Fields, beta: boolean) => readonly unknown[]>> = {
  chat: messagesOf,
  messages: messagesOf,
  completions: promptOf,
  responses: itemsOf,
};

/** A tool's result is a message of the role `tool`, as in a chat. DeepSeek keeps no responses. */
function itemsOf({ input, instructions, previous_response_id }: Fields): readonly unknown[] {
  if (previous_response_id != null) throw invalidValue("previous_response_id is not supported");
  const items: readonly unknown[] = typeof input === "string" ? [{ role: "user", content: input }] : listOf(input);
  const messages = items.map((item) => {
    const { type, output } = asRecord(item);
    return type === "function_call_output" ? { role: "tool", content: output } : item;
  });
  return instructions == null ? messages : [{ role: "system", content: instructions }, ...messages];
}

function listOf(input: unknown): readonly unknown[] {
  if (!Array.isArray(input)) throw invalidType("missing field `input`");
  if (input.length === 0) throw invalidValue("Empty input");
  return input;
}

function messagesOf({ messages, system }: Readonly<Record<string, unknown>>): readonly unknown[] {
  if (!Array.isArray(messages)) throw invalidType("missing field `messages`");
  if (messages.length === 0) throw invalidValue("Empty input messages");
  if (messages.some((message) => asRecord(message).role === "developer")) {
    throw invalidValue("unknown variant `developer`, expected one of `system`, `user`, `assistant`, `tool`");
  }
  return system === undefined ? messages : [{ role: "system", content: system }, ...(messages as unknown[])];
}

/** The suffix comes before the prompt, so that the prompt is the last message. */
function promptOf({ prompt, suffix }: Readonly<Record<string, unknown>>, beta: boolean): readonly unknown[] {
  if (!beta) throw invalidValue(betaOnly("completions api"));
  if (typeof prompt !== "string") throw invalidType("missing field `prompt`");
  const before = typeof suffix === "string" ? [{ role: "user", content: suffix }] : [];
  return [...before, { role: "user", content: prompt }];
}

function betaOnly(what: string): string {
  return `${what} is only available when using beta api (set base_url="https://api.deepseek.com/beta")`;
}

export function parseJson(body: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch {
    throw invalidValue("Failed to parse the request body as JSON: expected value");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw invalidType("invalid type, expected struct ChatCompletionRequest");
  }
  return asRecord(value);
}

function thinkingOf({ thinking, reasoning }: Fields): "enabled" | "disabled" | undefined {
  // The Responses API's way.
  if (asRecord(reasoning).effort === "none") return "disabled";
  const type = asRecord(thinking).type;
  return type === "enabled" || type === "disabled" ? type : undefined;
}

function maxTokensOf(value: unknown): number | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "number") throw invalidType("max_tokens: invalid type, expected u32");
  if (!Number.isInteger(value) || value < 1 || value > maxOutputTokens) {
    throw invalidValue(`Invalid max_tokens value, the valid range of max_tokens is [1, ${maxOutputTokens}]`);
  }
  return value;
}

function toolsOf(value: unknown): readonly ToolSpec[] {
  if (!Array.isArray(value)) return [];
  return value.flatMap((tool: unknown) => {
    // OpenAI's tools have a `function` with parameters; Anthropic's have name and input_schema directly.
    const { function: inner, type } = asRecord(tool);
    const spec = asRecord(inner ?? tool);
    const name = spec.name;
    // Groups of tools in the Responses API have a name as well.
    if (type === "namespace" || typeof name !== "string") return [];
    return [{ name, properties: asRecord(asRecord(spec.parameters ?? spec.input_schema).properties) }];
  });
}

function toolChoiceOf(value: unknown): "auto" | "none" | "forced" {
  const { type } = asRecord(value);
  if (value === "none" || type === "none") return "none";
  if (type === "auto") return "auto";
  return value === "required" || typeof value === "object" ? "forced" : "auto";
}

/** Content is a string, or a list of parts of which only those with text count. */
function textOf(content: unknown): string {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return "";
  return content
    .map((part: unknown) => asRecord(part).text)
    .filter((text) => typeof text === "string")
    .join("\n");
}

function bytesOf(value: unknown): number {
  if (value === undefined || value === null) return 0;
  const content = asRecord(value).content;
  return Buffer.byteLength(typeof content === "string" ? content : JSON.stringify(value));
}

/** The value's fields; none if it is not an object. */
export function asRecord(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

export function invalidType(detail: string): RefusedError {
  return new RefusedError(
    refuse(
      422,
      "invalid_request_error",
      `Failed to deserialize the JSON body into the target type: ${detail} at line 1 column 1`,
    ),
  );
}

function invalidValue(message: string): RefusedError {
  return new RefusedError(refuse(400, "invalid_request_error", message));
}

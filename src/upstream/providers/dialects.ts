import type { FaultKind } from "../faults.ts";
import type { ApiName, Dialect } from "./provider.ts";

/** What an HTTP status alone says. */
function classifyStatus(status: number): FaultKind {
  if (status === 401 || status === 403) return "key_refused";
  if (status === 402) return "no_balance";
  if (status === 404) return "model_unknown";
  if (status === 408) return "timeout";
  if (status === 429) return "rate_limited";
  if (status === 503 || status === 529) return "overloaded";
  if (status >= 500) return "server_error";
  if (status >= 400) return "bad_request";
  return "invalid_response";
}

/** An error event in a stream that began with 200 carries no status: only its code can tell. */
const eventCodes: readonly (readonly [RegExp, FaultKind])[] = [
  [/rate_limit|too_many/, "rate_limited"],
  [/overloaded|unavailable/, "overloaded"],
  [/content_filter|content_policy/, "content_refused"],
  [/insufficient_(balance|quota)/, "no_balance"],
  [/authentication|invalid_api_key/, "key_refused"],
  [/invalid_request|context_length/, "bad_request"],
];

function classifyEvent(code: string): FaultKind {
  return eventCodes.find(([pattern]) => pattern.test(code))?.[1] ?? "server_error";
}

/** Codes that say more than the status they come with. */
const openaiCodes: ReadonlyMap<string, FaultKind> = new Map<string, FaultKind>([
  ["insufficient_quota", "no_balance"],
  ["billing_hard_limit_reached", "no_balance"],
  ["content_filter", "content_refused"],
  ["content_policy_violation", "content_refused"],
  ["model_not_found", "model_unknown"],
]);

/** Below a base URL, as OpenAI has them. */
const openaiPaths: Readonly<Record<ApiName, string | null>> = {
  chat: "/chat/completions",
  beta_chat: "/chat/completions",
  completions: "/completions",
  messages: null,
  embeddings: "/embeddings",
};

/** Below `https://api.deepseek.com`; only chats are under other base URLs as well, such as /v1. */
const deepseekPaths: Readonly<Record<Exclude<ApiName, "chat">, string | null>> = {
  beta_chat: "/beta/chat/completions",
  completions: "/beta/completions",
  messages: "/anthropic/v1/messages",
  embeddings: null,
};

/** Any server that speaks OpenAI's chat format. */
const openai: Dialect = {
  kind: "openai",
  defaultBaseUrl: "https://api.openai.com/v1",
  defaultKeyEnv: "OPENAI_API_KEY",
  probe: "models",
  knownModels: [],
  pathOf(api, base) {
    const path = openaiPaths[api];
    return path === null ? null : base + path;
  },
  classify: (status, code) => openaiCodes.get(code) ?? (status === 200 ? classifyEvent(code) : classifyStatus(status)),
};

/** DeepSeek: OpenAI's shapes; a 401 may be plain text, usage comes on the finish chunk. */
const deepseek: Dialect = {
  kind: "deepseek",
  defaultBaseUrl: "https://api.deepseek.com",
  defaultKeyEnv: "DEEPSEEK_API_KEY",
  probe: "balance",
  knownModels: ["deepseek-flash", "deepseek-v4-pro"],
  pathOf(api, base) {
    if (api === "chat") return `${base}/chat/completions`;
    const path = deepseekPaths[api];
    return path === null ? null : base.replace(/\/(v1|beta)$/, "") + path;
  },
  classify(status, code, message) {
    if (status === 200) return classifyEvent(code);
    // Both come as 400 with the code of any other bad request: only the words tell them apart.
    if (status === 400 && message.startsWith("Model Not Exist")) return "model_unknown";
    if (status === 400 && message.startsWith("Content Exists Risk")) return "content_refused";
    return classifyStatus(status);
  },
};

/** Zhipu's numeric codes say more than its statuses: 1113 comes as 429 and means that the account is empty. */
const zhipuCodes: ReadonlyMap<string, FaultKind> = new Map<string, FaultKind>([
  ["1000", "key_refused"],
  ["1001", "key_refused"],
  ["1002", "key_refused"],
  ["1003", "key_refused"],
  ["1113", "no_balance"],
  ["1200", "server_error"],
  ["1210", "bad_request"],
  ["1211", "model_unknown"],
  ["1261", "bad_request"],
  ["1301", "content_refused"],
  ["1302", "rate_limited"],
  ["1303", "rate_limited"],
  ["1304", "no_balance"],
  ["1305", "overloaded"],
  ["1308", "no_balance"],
  ["1310", "no_balance"],
  ["1312", "overloaded"],
]);

/** Zhipu GLM. */
const zhipu: Dialect = {
  kind: "zhipu",
  defaultBaseUrl: "https://open.bigmodel.cn/api/paas/v4",
  defaultKeyEnv: "ZHIPU_API_KEY",
  probe: "models",
  knownModels: ["glm-4.6", "glm-4.5-flash"],
  pathOf(api, base) {
    if (api === "completions") return null;
    // Beside the versions of its own API, and one for all plans.
    if (api === "messages") return `${base.replace(/(\/coding)?\/paas\/v4$/, "")}/anthropic/v1/messages`;
    return openai.pathOf(api, base);
  },
  classify: (status, code) => zhipuCodes.get(code) ?? (status === 200 ? classifyEvent(code) : classifyStatus(status)),
};

/** The built-in simulator: shaped like DeepSeek, with embeddings besides, so that a demo can show everything. */
const simulator: Dialect = {
  ...deepseek,
  kind: "simulator",
  pathOf: (api, base) => (api === "embeddings" ? `${base}/embeddings` : deepseek.pathOf(api, base)),
};

export const dialects: Readonly<Record<Dialect["kind"], Dialect>> = { openai, deepseek, zhipu, simulator };

import type { FaultKind } from "./faults.ts";
import type { Dialect } from "./provider.ts";

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
function classifyEvent(code: string): FaultKind {
  if (/rate_limit|too_many/.test(code)) return "rate_limited";
  if (/content_filter|content_policy/.test(code)) return "content_refused";
  if (/invalid_request/.test(code)) return "bad_request";
  return "server_error";
}

/** Any server that speaks OpenAI's chat format. */
export const openai: Dialect = {
  kind: "openai",
  defaultBaseUrl: "https://api.openai.com/v1",
  defaultKeyEnv: "OPENAI_API_KEY",
  knownModels: [],
  classify(status, code) {
    if (code === "insufficient_quota") return "no_balance";
    if (code === "content_filter" || code === "content_policy_violation") return "content_refused";
    return status === 200 ? classifyEvent(code) : classifyStatus(status);
  },
};

/** DeepSeek: OpenAI's shapes; a 401 may be plain text, usage comes on the finish chunk. */
export const deepseek: Dialect = {
  kind: "deepseek",
  defaultBaseUrl: "https://api.deepseek.com",
  defaultKeyEnv: "DEEPSEEK_API_KEY",
  knownModels: ["deepseek-flash", "deepseek-v4-pro"],
  classify: (status, code) => (status === 200 ? classifyEvent(code) : classifyStatus(status)),
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
export const zhipu: Dialect = {
  kind: "zhipu",
  defaultBaseUrl: "https://open.bigmodel.cn/api/paas/v4",
  defaultKeyEnv: "ZHIPU_API_KEY",
  knownModels: ["glm-4.6", "glm-4.5-flash"],
  classify: (status, code) => zhipuCodes.get(code) ?? (status === 200 ? classifyEvent(code) : classifyStatus(status)),
};

export const dialects: Readonly<Record<Dialect["kind"], Dialect>> = { openai, deepseek, zhipu };

import type { UpstreamErrorKind } from "../upstream-error.ts";
import type { ApiName } from "../apis.ts";
import type { ProviderKind } from "../provider-kind.ts";
import { anthropicHeaders } from "./anthropic-headers.ts";
import { openai } from "./openai.ts";

/** Zhipu's numeric codes are more specific than its statuses: 1113 comes as 429 and means that the account is empty. */
const zhipuCodes: ReadonlyMap<string, UpstreamErrorKind> = new Map<string, UpstreamErrorKind>([
  ["1000", "key_refused"],
  ["1001", "key_refused"],
  ["1002", "key_refused"],
  ["1003", "key_refused"],
  ["1004", "key_refused"],
  // The account is inactive, unknown, locked.
  ["1110", "key_refused"],
  ["1111", "key_refused"],
  ["1112", "key_refused"],
  ["1113", "no_balance"],
  ["1120", "key_refused"],
  ["1121", "key_refused"],
  ["1200", "server_error"],
  ["1210", "bad_request"],
  ["1211", "model_unknown"],
  ["1212", "bad_request"],
  ["1213", "bad_request"],
  ["1214", "bad_request"],
  ["1215", "bad_request"],
  ["1220", "forbidden"],
  ["1221", "unsupported"],
  ["1222", "unsupported"],
  ["1230", "server_error"],
  ["1234", "server_error"],
  ["1261", "bad_request"],
  ["1300", "content_refused"],
  ["1301", "content_refused"],
  ["1302", "rate_limited"],
  ["1303", "rate_limited"],
  ["1304", "no_balance"],
  ["1305", "overloaded"],
  ["1308", "no_balance"],
  ["1309", "no_balance"],
  ["1310", "no_balance"],
  ["1312", "overloaded"],
]);

/** The APIs that it has where OpenAI has them. */
const likeOpenai: ReadonlySet<ApiName> = new Set<ApiName>(["chat", "beta_chat", "embeddings"]);

/** Zhipu GLM. */
export const zhipu: ProviderKind = {
  ...openai,
  name: "zhipu",
  defaultBaseUrl: "https://open.bigmodel.cn/api/paas/v4",
  defaultKeyEnv: "ZHIPU_API_KEY",
  mayBeKeyless: false,
  knownModels: ["glm-4.6", "glm-4.5-flash"],
  features: {
    streamOptions: true,
    developerRole: false,
    maxCompletionTokens: false,
    keepsResponses: false,
    namesWithoutThinking: [],
  },
  pathOf(api, base, model) {
    // Next to the versions of its own API, and the same for all plans.
    if (api === "messages") return `${base.replace(/(\/coding)?\/paas\/v4$/, "")}/anthropic/v1/messages`;
    return likeOpenai.has(api) ? openai.pathOf(api, base, model) : null;
  },
  headersOf: anthropicHeaders,
  classify: (_status, { code }) => zhipuCodes.get(code) ?? null,
};

import type { UpstreamErrorKind } from "../upstream-error.ts";
import type { ApiName, ProviderKind } from "../provider.ts";

/** OpenAI's paths, below the base URL. */
const openaiPaths: Readonly<Record<ApiName, string | null>> = {
  chat: "/chat/completions",
  beta_chat: "/chat/completions",
  completions: "/completions",
  messages: null,
  embeddings: "/embeddings",
};

/** Below `https://api.deepseek.com`; only chats also work under other base URLs, such as /v1. */
const deepseekPaths: Readonly<Record<Exclude<ApiName, "chat">, string | null>> = {
  beta_chat: "/beta/chat/completions",
  completions: "/beta/completions",
  messages: "/anthropic/v1/messages",
  embeddings: null,
};

/** Any server that speaks OpenAI's chat format. */
const openai: ProviderKind = {
  kind: "openai",
  defaultBaseUrl: "https://api.openai.com/v1",
  defaultKeyEnv: "OPENAI_API_KEY",
  probe: "models",
  developerRole: true,
  knownModels: [],
  pathOf(api, base) {
    const path = openaiPaths[api];
    return path === null ? null : base + path;
  },
  classify: () => null,
};

/** DeepSeek: OpenAI's formats; a 401 may be plain text, usage comes with the finish chunk. */
const deepseek: ProviderKind = {
  kind: "deepseek",
  defaultBaseUrl: "https://api.deepseek.com",
  defaultKeyEnv: "DEEPSEEK_API_KEY",
  probe: "balance",
  developerRole: false,
  knownModels: ["deepseek-flash", "deepseek-v4-pro"],
  pathOf(api, base) {
    if (api === "chat") return `${base}/chat/completions`;
    const path = deepseekPaths[api];
    return path === null ? null : base.replace(/\/(v1|beta)$/, "") + path;
  },
  classify(status, { message }) {
    // Both come as 400 with the code of any other bad request: only the message distinguishes them.
    if (status !== 400 && status !== 200) return null;
    if (message.startsWith("Model Not Exist")) return "model_unknown";
    return message.startsWith("Content Exists Risk") ? "content_refused" : null;
  },
};

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

/** Zhipu GLM. */
const zhipu: ProviderKind = {
  kind: "zhipu",
  defaultBaseUrl: "https://open.bigmodel.cn/api/paas/v4",
  defaultKeyEnv: "ZHIPU_API_KEY",
  probe: "models",
  developerRole: false,
  knownModels: ["glm-4.6", "glm-4.5-flash"],
  pathOf(api, base) {
    if (api === "completions") return null;
    // Next to the versions of its own API, and the same for all plans.
    if (api === "messages") return `${base.replace(/(\/coding)?\/paas\/v4$/, "")}/anthropic/v1/messages`;
    return openai.pathOf(api, base);
  },
  classify: (_status, { code }) => zhipuCodes.get(code) ?? null,
};

/** The built-in simulator: like DeepSeek, plus embeddings, so that a demo can show everything. */
const simulator: ProviderKind = {
  ...deepseek,
  kind: "simulator",
  pathOf: (api, base) => (api === "embeddings" ? `${base}/embeddings` : deepseek.pathOf(api, base)),
};

export const providerKinds: Readonly<Record<ProviderKind["kind"], ProviderKind>> = {
  openai,
  deepseek,
  zhipu,
  simulator,
};

import type { ApiName, ProviderKind } from "../provider.ts";

/** Below `https://api.deepseek.com`; only chats also work under other base URLs, such as /v1. */
const deepseekPaths: Readonly<Record<Exclude<ApiName, "chat">, string | null>> = {
  beta_chat: "/beta/chat/completions",
  completions: "/beta/completions",
  messages: "/anthropic/v1/messages",
  embeddings: null,
};

/** DeepSeek: OpenAI's formats; a 401 may be plain text, usage comes with the finish chunk. */
export const deepseek: ProviderKind = {
  kind: "deepseek",
  defaultBaseUrl: "https://api.deepseek.com",
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

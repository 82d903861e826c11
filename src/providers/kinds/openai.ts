import type { ApiName, ProviderKind } from "../provider.ts";

/** OpenAI's paths, below the base URL. */
const openaiPaths: Readonly<Record<ApiName, string | null>> = {
  chat: "/chat/completions",
  beta_chat: "/chat/completions",
  completions: "/completions",
  messages: null,
  embeddings: "/embeddings",
};

/** Any server that speaks OpenAI's chat format. */
export const openai: ProviderKind = {
  kind: "openai",
  defaultBaseUrl: "https://api.openai.com/v1",
  probe: "models",
  developerRole: true,
  knownModels: [],
  pathOf(api, base) {
    const path = openaiPaths[api];
    return path === null ? null : base + path;
  },
  classify: () => null,
};

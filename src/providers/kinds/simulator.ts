import type { ProviderKind } from "../provider.ts";
import { deepseek } from "./deepseek.ts";

/** The built-in simulator: like DeepSeek, plus embeddings, so that a demo can show everything. */
export const simulator: ProviderKind = {
  ...deepseek,
  kind: "simulator",
  pathOf: (api, base) => (api === "embeddings" ? `${base}/embeddings` : deepseek.pathOf(api, base)),
};

import type { ApiFormat } from "./api-format.ts";
import { betaChatCompletions, chatCompletions } from "./chat-completions.ts";
import { completions } from "./completions.ts";
import { embeddings } from "./embeddings.ts";
import { messages } from "./messages.ts";
import { responses } from "./responses.ts";

/** Every API that clients can use, one file each; the routes follow from this list. */
export const formats: readonly ApiFormat[] = [
  chatCompletions,
  betaChatCompletions,
  completions,
  messages,
  responses,
  embeddings,
];

import type { Question } from "../upstream/question.ts";

/** A request that passed all checks. The body itself goes upstream as it came, with a few members replaced. */
export interface ChatRequest extends Question {
  readonly model: string;
  /** Whether the client wants SSE; else one JSON. */
  readonly stream: boolean;
  /** Whether the client asked for OpenAI's extra usage chunk. */
  readonly wantsUsageChunk: boolean;
  /** Most tokens of output that the client allows, for one choice; null where it names none. */
  readonly maxTokens: number | null;
  /** Size of the body in bytes. */
  readonly bytes: number;
}

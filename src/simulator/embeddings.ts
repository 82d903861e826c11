import { createHash } from "node:crypto";
import { asRecord, invalidType, parseJson, readModel } from "./request.ts";

/** Default length of a vector; short, because the numbers have no meaning. */
const defaultDimensions = 8;
const maxDimensions = 4096;

/** What the simulator understands of a request for embeddings. */
export interface EmbeddingRequest extends ReturnType<typeof readModel> {
  readonly texts: readonly string[];
  readonly dimensions: number;
  readonly base64: boolean;
}

/** Throws RefusedError with 400 (syntax) or 422 (types). */
export function parseEmbeddingRequest(body: string): EmbeddingRequest {
  const fields = parseJson(body);
  const texts = [fields.input].flat().map((text) => (typeof text === "string" ? text : JSON.stringify(text)));
  if (fields.input === undefined || texts.length === 0) throw invalidType("missing field `input`");
  const { dimensions } = fields;
  return {
    ...readModel(fields),
    texts,
    dimensions: typeof dimensions === "number" ? Math.min(maxDimensions, Math.max(1, dimensions)) : defaultDimensions,
    base64: asRecord(fields).encoding_format === "base64",
  };
}

/** The body of the response: vectors of length 1 that depend on nothing but the text. */
export function embeddingBody({ model, texts, dimensions, base64 }: EmbeddingRequest): string {
  const data = texts.map((text, index) => {
    const vector = vectorOf(text, dimensions);
    const embedding = base64 ? Buffer.from(Float32Array.from(vector).buffer).toString("base64") : vector;
    return { object: "embedding", index, embedding };
  });
  const tokens = texts.reduce((sum, text) => sum + Math.max(1, Math.ceil(Buffer.byteLength(text) / 4)), 0);
  return JSON.stringify({ object: "list", data, model, usage: { prompt_tokens: tokens, total_tokens: tokens } });
}

function vectorOf(text: string, dimensions: number): readonly number[] {
  const bytes = createHash("shake256", { outputLength: 2 * dimensions })
    .update(text)
    .digest();
  const raw = Array.from({ length: dimensions }, (_, index) => bytes.readInt16LE(2 * index));
  const length = Math.hypot(...raw) || 1;
  return raw.map((value) => value / length);
}

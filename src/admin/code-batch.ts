import type { CodeBatch } from "../identity/codes.ts";
import { AppError } from "../errors.ts";

export const codeStates = ["unused", "used", "used_up", "expired", "disabled"] as const;
export type CodeState = (typeof codeStates)[number];

/** @param now ms since the epoch */
export function codeState(batch: CodeBatch, index: number, now: number): CodeState {
  const code = batch.codes[index];
  if (code === undefined || code.disabled) return "disabled";
  if (code.uses.length >= batch.max_uses) return "used_up";
  if (batch.expires_at !== null && batch.expires_at <= now) return "expired";
  return code.uses.length > 0 ? "used" : "unused";
}

/** Throws AppError `code_invalid` unless the code can be used once more. */
export function checkUsableCode(batch: CodeBatch, index: number, now: number): void {
  const state = codeState(batch, index, now);
  if (state === "disabled") throw codeRefusal(state, "This code has been disabled.");
  if (state === "expired") throw codeRefusal(state, "This code has expired.");
  if (state === "used_up") throw codeRefusal(state, "This code has been used.");
}

/** Its place in the list of codes: the batch's id, and its number there, counted from 1. */
export function codeId({ id }: CodeBatch, index: number): string {
  return `${id}-${index + 1}`;
}

/** The batch with other uses of one of its codes. */
export function withUses<B extends CodeBatch>(batch: B, index: number, uses: B["codes"][number]["uses"]): B {
  return { ...batch, codes: batch.codes.map((code, at) => (at === index ? { ...code, uses } : code)) };
}

export function unknownCode(): AppError {
  return codeRefusal("unknown", "There is no such code.");
}

export function codeRefusal(reason: string, message: string): AppError {
  return new AppError("code_invalid", { param: "code", message, details: { reason } });
}

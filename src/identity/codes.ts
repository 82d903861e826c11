import { createHash, randomBytes } from "node:crypto";
import { z } from "zod";
import type { Awaitable } from "../lib/awaitable.ts";

const instant = z.int().min(0);

/** A use of a redemption code. Times in ms since the epoch. */
const creditSchema = z.strictObject({
  user: z.string(),
  at: instant,
  /**
   * When the credit ends; null: never. Fixed here, so that a repeated credit is the same one. Earlier versions wrote
   * parts of a millisecond.
   */
  until: z.number().min(0).transform(Math.round).nullable(),
  /** Whether the user has the credit: until then it is given again after a crash. */
  done: z.boolean(),
});

/** A use of an invitation: first a claim, then, once the user exists, done. */
const invitationUseSchema = z.strictObject({
  id: z.string(),
  user: z.string(),
  at: instant,
  done: z.boolean(),
});

const codesOf = <U extends z.ZodType>(use: U) =>
  z.array(z.strictObject({ digest: z.string(), disabled: z.boolean(), uses: z.array(use) }));

/** Codes that were made together. As stored: the codes themselves only as their digests. */
const batch = {
  id: z.string().regex(/^[0-9a-z]{8}$/),
  name: z.string(),
  created_at: instant,
  by: z.string(),
  expires_at: instant.nullable(),
  /** Who may redeem them; null: anyone. Of invitations: where new users belong; null: no group, the first tier. */
  group: z.string().nullable(),
  tier: z.string().nullable(),
  /** How often each code can be used, by a user each. */
  max_uses: z.int(),
};

/** Codes that add to the quota of those who have an account. */
const redemptionSchema = z.strictObject({
  ...batch,
  kind: z.literal("quota"),
  metric: z.string(),
  per: z.string(),
  /** As in a grant: cost in units of the currency. */
  amount: z.number(),
  currency: z.string().nullable(),
  /** How long the credit lasts; null: to the end of the running period. */
  credit_days: z.number().nullable(),
  codes: codesOf(creditSchema),
});

/** Codes by which strangers register. */
const invitationSchema = z.strictObject({
  ...batch,
  kind: z.literal("invitation"),
  note: z.string(),
  codes: codesOf(invitationUseSchema),
});

const codeBatchSchema = z.discriminatedUnion("kind", [redemptionSchema, invitationSchema]);

export const codeKinds = ["quota", "invitation"] as const;
export type RedemptionBatch = Readonly<z.output<typeof redemptionSchema>>;
export type InvitationBatch = Readonly<z.output<typeof invitationSchema>>;
export type CodeBatch = RedemptionBatch | InvitationBatch;
export type Credit = Readonly<z.output<typeof creditSchema>>;
export type InvitationUse = Readonly<z.output<typeof invitationUseSchema>>;

/** Where codes are kept, by batches. */
export interface Codes {
  get(id: string): Awaitable<CodeBatch | undefined>;
  /** Of all batches, sorted: the oldest first, as their ids begin with their time. */
  ids(): Awaitable<readonly string[]>;
  /**
   * Changes a batch as it is stored now; on disk, or in Redis, when this resolves. Of several changes at once each sees
   * what the ones before have left.
   *
   * @param edit the batch instead, or undefined to leave it; undefined comes where there is none. Called again if
   * somebody else was faster
   * @throws what `edit` throws; AppError `storage_unavailable`: then the outcome may be unknown
   */
  change(id: string, edit: (batch: CodeBatch | undefined) => CodeBatch | undefined): Awaitable<CodeBatch | undefined>;
}

/** Crockford's: without letters that look like others. */
const alphabet = "0123456789abcdefghjkmnpqrstvwxyz";
const idLength = 8;
/** 100 random bits. */
const secretLength = 20;

/** A new id: 6 digits of the time in s, so that ids sort by it, and 2 at random. */
export function newBatchId(now: number): string {
  let seconds = Math.floor(now / 1000);
  let text = "";
  for (let digits = 0; digits < 6; digits++) {
    text = (alphabet[seconds % 32] ?? "") + text;
    seconds = Math.floor(seconds / 32);
  }
  return text + randomText(2);
}

/** A new code of a batch, as users type it: `0K3F9QAB-XXXXX-XXXXX-XXXXX-XXXXX`. */
export function newCode(batchId: string): string {
  const secret = randomText(secretLength);
  return [batchId, ...(secret.match(/.{5}/g) ?? [])].join("-").toUpperCase();
}

/** The batch of a code as somebody typed it, and its digest; undefined if it can't be one. */
export function parseCode(text: string): { readonly batch: string; readonly digest: string } | undefined {
  const code = text.toLowerCase().replace(/[-\s]/g, "").replaceAll("o", "0").replace(/[il]/g, "1");
  if (code.length !== idLength + secretLength || !/^[0-9a-z]+$/.test(code)) return undefined;
  return { batch: code.slice(0, idLength), digest: digestOf(code) };
}

/** SHA-256 without a salt is enough: random bits can't be guessed. */
function digestOf(code: string): string {
  return createHash("sha256").update(code).digest("base64url");
}

/** Random letters and digits. */
export function randomText(length: number): string {
  return Array.from(randomBytes(length), (byte) => alphabet[byte % 32]).join("");
}

/** @throws Error if the text is none of ours */
export function parseBatch(text: string): CodeBatch {
  return codeBatchSchema.parse(JSON.parse(text));
}

/** The text of codes/ID.json. */
export function batchText(batch: CodeBatch): string {
  return `${JSON.stringify(batch)}\n`;
}

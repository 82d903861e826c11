import { z } from "zod";
import { isoInstant } from "../../config/value-schemas.ts";
import { AppError } from "../../errors.ts";
import type { CreatedApiKey, NewApiKey } from "../../identity/api-keys.ts";
import type { KnownModels } from "../../providers/model-list.ts";
import { isoOfInstant } from "../../lib/wall-clock.ts";
import { checkModelNames } from "./model-names.ts";
import { apiKeyTerms, type ApiKey } from "../../identity/keys/api-key.ts";

/** The settings of a new key, in requests. */
export const keyBody = z.strictObject({
  ...apiKeyTerms,
  expires_at: isoInstant.optional().describe("When it expires. Absent: never."),
  require_signature: z
    .boolean()
    .default(false)
    .describe("Whether its requests must be signed; see docs/signatures.md."),
});

/** An API key, without the secret itself. */
const keyResponse = z.object({
  id: z.string(),
  ...apiKeyTerms,
  require_signature: z.boolean(),
  created_at: z.iso.datetime(),
  expires_at: z.iso.datetime().nullable(),
});

/** The same in a list. */
export const listedKeyResponse = keyResponse.extend({ last_used_at: z.iso.datetime().nullable() });

/** A key that has just been made. */
export const newKeyResponse = keyResponse.extend({
  key: z.string().describe("The key. Shown only here."),
  signing_secret: z.string().optional().describe("Signs the requests of the key. Shown only here."),
});

/**
 * The settings of a request for a new key.
 *
 * @throws AppError `invalid_request` for a time that lies in the past, and for a misspelled model, which would make the
 * key useless
 */
export function toKeySettings(body: z.output<typeof keyBody>, knownModels: KnownModels, nowMs: number): NewApiKey {
  const { expires_at, require_signature, ...terms } = body;
  const expiresAt = expires_at === undefined ? undefined : Date.parse(expires_at);
  if (expiresAt !== undefined && expiresAt <= nowMs) {
    throw new AppError("invalid_request", { param: "expires_at", message: "expires_at lies in the past." });
  }
  checkModelNames(terms.models, knownModels);
  return { ...terms, expiresAt, signed: require_signature };
}

export function toNewKeyResponse({ key, text, signingSecret }: CreatedApiKey): z.input<typeof newKeyResponse> {
  return {
    ...toKeyResponse(key),
    key: text,
    ...(signingSecret === undefined ? {} : { signing_secret: signingSecret }),
  };
}

function toKeyResponse(key: ApiKey): z.input<typeof keyResponse> {
  const { id, name, models, addresses, denyAddresses, limits, signed, createdAt, expiresAt, group } = key;
  return {
    id,
    name,
    ...(models === null ? {} : { models: [...models] }),
    ...(addresses === null ? {} : { addresses: [...addresses] }),
    ...(denyAddresses.length === 0 ? {} : { deny_addresses: [...denyAddresses] }),
    ...(limits.length === 0 ? {} : { limits: [...limits] }),
    ...(group === null ? {} : { group }),
    require_signature: signed,
    created_at: isoOfInstant(createdAt),
    expires_at: isoOrNull(expiresAt),
  };
}

export function toListedKeyResponse(
  key: ApiKey & { readonly lastUsedAt: number | null },
): z.input<typeof listedKeyResponse> {
  return { ...toKeyResponse(key), last_used_at: isoOrNull(key.lastUsedAt) };
}

function isoOrNull(ms: number | null): string | null {
  return ms === null ? null : isoOfInstant(ms);
}

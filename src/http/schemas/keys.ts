import { z } from "zod";
import { isoOfInstant } from "../../lib/wall-clock.ts";
import { apiKeyTerms, type ApiKey } from "../../identity/keys/api-key.ts";

/** An API key, without the secret itself. */
export const keyResponse = z.object({
  id: z.string(),
  ...apiKeyTerms,
  require_signature: z.boolean(),
  created_at: z.iso.datetime(),
  expires_at: z.iso.datetime().nullable(),
});

/** The same in a list. */
export const listedKeyResponse = keyResponse.extend({ last_used_at: z.iso.datetime().nullable() });

export function toKeyResponse(key: ApiKey): z.input<typeof keyResponse> {
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

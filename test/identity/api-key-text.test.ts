import { fc } from "../support/fast-check.ts";
import { expect, it } from "vitest";
import {
  apiKeyHash,
  isWholeApiKey,
  looksLikeApiKey,
  newApiKeyText,
  signingSecretOf,
} from "../../src/identity/keys/api-key-text.ts";

it("has a shape of its own, and never comes twice", () => {
  const keys = new Set(Array.from({ length: 100 }, newApiKeyText));
  expect(keys.size).toBe(100);
  for (const key of keys) {
    expect(key).toMatch(/^dsp_[0-9A-Za-z]{49}$/);
    expect(looksLikeApiKey(key)).toBe(true);
    expect(isWholeApiKey(key)).toBe(true);
  }
});

it("gives away a single wrong character anywhere, two that changed places, and a cut", () => {
  const character = fc.string({ unit: "grapheme-ascii", minLength: 1, maxLength: 1 });
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 52 }), character, (at, wrong) => {
      const key = newApiKeyText();
      const mistyped = key.slice(0, at) + wrong + key.slice(at + 1);
      if (mistyped !== key) expect(isWholeApiKey(mistyped)).toBe(false);
      const swapped = key.slice(0, at) + (key[at + 1] ?? "") + (key[at] ?? "") + key.slice(at + 2);
      if (swapped !== key) expect(isWholeApiKey(swapped)).toBe(false);
      expect(isWholeApiKey(key.slice(0, at))).toBe(false);
    }),
  );
});

it("has a hash and a signing secret that don't show it", () => {
  const key = newApiKeyText();
  expect(apiKeyHash(key)).toMatch(/^[\w-]{43}$/);
  const secret = signingSecretOf(key, "salt");
  expect(secret).toMatch(/^dss_[0-9A-Za-z]{43}$/);
  expect(signingSecretOf(key, "salz")).not.toBe(secret);
  expect(signingSecretOf(newApiKeyText(), "salt")).not.toBe(secret);
});

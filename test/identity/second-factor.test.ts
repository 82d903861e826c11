import { describe, expect, it } from "vitest";
import { newTotpSecret, totpCode } from "../../src/identity/login/second-factor.ts";

describe("TOTP", () => {
  // RFC 6238, appendix B: the last 6 of its 8 digits; the secret is "12345678901234567890".
  it.each([
    [59, "287082"],
    [1_111_111_109, "081804"],
    [1_111_111_111, "050471"],
    [1_234_567_890, "005924"],
    [2_000_000_000, "279037"],
    [20_000_000_000, "353130"],
  ])("gives at %d s the code %s", (seconds, code) => {
    expect(totpCode("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", Math.floor(seconds / 30))).toBe(code);
  });

  it("makes secrets of 160 bits that differ, and addresses without gaps", () => {
    const made = Array.from({ length: 50 }, () => newTotpSecret("alice", "Our models & more"));
    expect(new Set(made.map(({ secret }) => secret)).size).toBe(50);
    for (const { secret, uri } of made) {
      expect(secret).toMatch(/^[A-Z2-7]{32}$/);
      expect(new URL(uri).searchParams.get("secret")).toBe(secret);
      expect(uri).toBe(
        `otpauth://totp/Our%20models%20%26%20more:alice?secret=${secret}&issuer=Our%20models%20%26%20more`,
      );
    }
  });
});

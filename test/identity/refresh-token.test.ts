import { expect, it } from "vitest";
import {
  digestOf,
  newRefreshToken,
  newSalt,
  parseRefreshToken,
  refreshTokenText,
  successorOf,
} from "../../src/identity/sessions/refresh-token.ts";

it("comes back from its text as it was", () => {
  const token = newRefreshToken();
  expect(refreshTokenText(token)).toMatch(/^dsr_[\w-]{64}$/);
  expect(parseRefreshToken(refreshTokenText(token))).toEqual(token);
});

it.each([
  "",
  "dsr_",
  "x".repeat(68),
  `dsp_${"a".repeat(64)}`,
  `dsr_${"a".repeat(63)}`,
  `dsr_${"a".repeat(65)}`,
  `dsr_${"a".repeat(63)}=`,
])("is not %j", (text) => {
  expect(parseRefreshToken(text)).toBeUndefined();
});

it("has one successor for each salt, which neither secret nor salt gives alone", () => {
  const { secret } = newRefreshToken();
  const salt = newSalt();
  expect(successorOf(secret, salt)).toEqual(successorOf(secret, salt));
  expect(successorOf(secret, newSalt())).not.toEqual(successorOf(secret, salt));
  expect(successorOf(newRefreshToken().secret, salt)).not.toEqual(successorOf(secret, salt));
  expect(digestOf(successorOf(secret, salt))).toHaveLength(43);
});

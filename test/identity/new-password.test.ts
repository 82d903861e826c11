import { describe, expect, it } from "vitest";
import { commonPasswords } from "../../src/identity/passwords/common-passwords.ts";
import { checkNewPassword } from "../../src/identity/passwords/new-password.ts";

const check = (password: string) => () => {
  checkNewPassword(password, "margarethe", "new_password");
};
const refused = expect.objectContaining({
  code: "invalid_request",
  extras: expect.objectContaining({ param: "new_password" }),
});

describe("a new password", () => {
  it.each(["1234567", "ä".repeat(3), "x".repeat(1025), "ä".repeat(513)])("of a length of %j is refused", (password) => {
    expect(check(password)).toThrow(refused);
  });

  it.each(["12345678", "Password1", "QWERTYUIOP", "iloveyou", "deepseek123", "margarethe", "Margarethe"])(
    "such as %s, which is tried first, is refused",
    (password) => {
      expect(check(password)).toThrow(refused);
    },
  );

  it.each(["aaaa bbb", "ää ää", "一二三", "x".repeat(1024), "tangential otters", "        "])(
    "such as %j is fine: what it is made of doesn't matter",
    (password) => {
      expect(check(password)).not.toThrow();
    },
  );
});

it("the list holds three thousand passwords that would otherwise pass, in lower case", () => {
  expect(commonPasswords.size).toBeGreaterThanOrEqual(3000);
  for (const password of commonPasswords) {
    expect(password).toBe(password.toLowerCase());
    expect(password.length).toBeGreaterThanOrEqual(8);
  }
});

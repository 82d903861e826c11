import { anyText, fc } from "../support/fast-check.ts";
import { basename, join, normalize } from "node:path";
import { expect, it } from "vitest";
import { checkUserName, isUserName } from "../../src/identity/user-name.ts";
import { AppError } from "../../src/errors.ts";

const refused = [
  "",
  "Admin",
  "аdmin",
  "../x",
  "a/b",
  "a\\b",
  "a%2fb",
  "a\0",
  "a\n",
  "a.",
  "a.b",
  ".a",
  " a",
  "a ",
  "-a",
  "_a",
  "con",
  "prn",
  "aux",
  "nul",
  "com1",
  "com9",
  "lpt1",
  "lpt9",
  "a".repeat(33),
  "é",
  "ａ",
  "__proto__",
  "a:b",
  "a*",
];

it.each(refused)("refuses %j as a user name", (name) => {
  expect(isUserName(name)).toBe(false);
});

it.each(["a", "0", "bob", "bob-smith_2", "a".repeat(32), "console", "com10", "constructor"])("accepts %j", (name) => {
  expect(checkUserName(name)).toBe(name);
});

it("refuses what is not text, and says what would be right", () => {
  for (const input of [undefined, null, 1, {}, ["bob"], { toString: () => "bob" }]) {
    expect(() => checkUserName(input)).toThrow(AppError);
  }
  expect(() => checkUserName("Admin")).toThrow(/lower-case/);
  try {
    checkUserName("Admin");
  } catch (error) {
    expect(error).toMatchObject({ code: "invalid_request", status: 400, extras: { param: "username" } });
  }
});

it("accepts nothing that is not safe as a file name on every system", () => {
  const names = fc.oneof(
    anyText({ maxLength: 40 }),
    fc.string({ unit: fc.constantFrom(...Array.from("abzAZ09-_./\\ \0:~а")), maxLength: 40 }),
    fc.constantFrom(...refused),
  );
  fc.assert(
    fc.property(names, (name) => {
      if (!isUserName(name)) return;
      const file = `${name}.toml`;
      expect(basename(file)).toBe(file);
      expect(normalize(join("users", file))).toBe(join("users", file));
      expect(name.toLowerCase()).toBe(name);
      expect(Buffer.byteLength(name)).toBeLessThanOrEqual(32);
      expect(name).toMatch(/^[\x21-\x7e]+$/);
    }),
    { numRuns: 2000 },
  );
});

import fc from "fast-check";
import { parse, stringify } from "smol-toml";
import { describe, expect, it } from "vitest";
import { editToml, parseToml } from "../../src/accounts/toml-edit.ts";

const file = `# Bob, from sales
username = "bob" # his login
password = "tell nobody"   # to be hashed
quota_tier = 'basic'
roles = ["user", "a]b"] # both

# notes
[metadata]
password = "not this one" # stays
text = """
password = "nor this one"
"""
`;

describe("editToml", () => {
  it("puts the hash where the plaintext stood and leaves every other byte", () => {
    const edited = editToml(file, { password_hash: "$argon2id$x", password: undefined, quota_tier: "premium" });
    expect(edited).toBe(
      file
        .replace('password = "tell nobody"   # to be hashed', 'password_hash = "$argon2id$x"')
        .replace("quota_tier = 'basic'", 'quota_tier = "premium"'),
    );
  });

  it("keeps the comment behind a changed value", () => {
    expect(editToml(file, { roles: ["admin"] })).toContain('roles = [ "admin" ] # both\n');
  });

  it("adds a new key after the name, with the file's line ends", () => {
    expect(editToml('username = "bob"\r\n[metadata]\r\n', { is_active: false })).toBe(
      'username = "bob"\r\nis_active = false\r\n[metadata]\r\n',
    );
    expect(editToml('username = "bob"', { is_active: false })).toBe('username = "bob"\nis_active = false');
  });

  it("is not led astray by text that looks like a key inside a multi-line string", () => {
    const tricky = `username = "bob"\nnote = """\nquota_tier = "fake"\n[x]\n"""\nquota_tier = "basic"\n`;
    expect(parse(editToml(tricky, { quota_tier: "premium" }))).toEqual({
      username: "bob",
      note: 'quota_tier = "fake"\n[x]\n',
      quota_tier: "premium",
    });
  });

  it.each([
    ["a value over several lines", 'username = "bob"\nroles = [\n "user", # yes\n]\n'],
    ["a key spelled with an escape", 'username = "bob"\n"rol\\u0065s" = ["user"]\n'],
    ["a quoted key", "'username' = 'bob'\n'roles' = ['user']\n"],
    ["no name to stand after", "[metadata]\na = 1\n"],
  ])("gets the data right with %s", (_what, text) => {
    const edited = editToml(text, { roles: ["admin"] });
    expect(parseToml(edited)).toEqual({ ...parseToml(text), roles: ["admin"] });
  });

  it("changes the given keys and no other, whatever the file holds", () => {
    const key = fc.constantFrom("username", "password", "quota_tier", "roles", "is_active", "metadata", "x");
    const value = fc.oneof(
      fc.string(),
      fc.integer(),
      fc.boolean(),
      fc.array(fc.string()),
      fc.dictionary(key, fc.string()),
    );
    const comment = fc.string({ unit: fc.constantFrom(...Array.from("abc #=[]\"'")), maxLength: 12 });
    fc.assert(
      fc.property(
        fc.dictionary(key, value),
        fc.dictionary(key, fc.option(value, { nil: undefined })),
        fc.infiniteStream(comment),
        (before, changes, comments) => {
          const text = stringify(before).replace(/$/gm, () => `# ${comments.next().value}`);
          const isCommented = tryParse(text) !== undefined;
          const edited = editToml(isCommented ? text : stringify(before), changes);
          const wanted = Object.fromEntries(
            Object.entries({ ...before, ...changes }).filter(([, value]) => value !== undefined),
          );
          expect(parseToml(edited)).toEqual(parseToml(stringify(wanted)));
        },
      ),
      { numRuns: 1000 },
    );
  });
});

function tryParse(text: string): unknown {
  try {
    return parseToml(text);
  } catch {
    return undefined;
  }
}

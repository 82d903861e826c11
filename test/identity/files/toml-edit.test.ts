import { fc } from "../../support/fast-check.ts";
import { parse, stringify } from "smol-toml";
import { describe, expect, it } from "vitest";
import { editToml, parseToml } from "../../../src/identity/files/toml-edit.ts";

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

  const limits = [{ metric: "requests", per: "day", max: 5 }];
  const inline = 'limits = [ { metric = "requests", per = "day", max = 5 } ]';

  it("writes tables and lists of tables on one line, so that nothing else has to move", () => {
    const edited = editToml(file, { limits, metadata2: { a: { b: 1 } } });
    expect(edited).toBe(
      file.replace('"bob" # his login\n', `"bob" # his login\n${inline}\nmetadata2 = { a = { b = 1 } }\n`),
    );
    expect(editToml(edited, { limits: undefined, metadata2: undefined })).toBe(file);
  });

  it("replaces a list over several lines by one line, and keeps the comments around it", () => {
    const before = 'username = "bob"\n# daily\nlimits = [ # old\n  { max = 1 },\n]\n# the end\n';
    const after = `username = "bob"\n# daily\n${inline}\n# the end\n`;
    expect(editToml(before, { limits })).toBe(after);
    expect(editToml(before, { limits: undefined })).toBe('username = "bob"\n# daily\n# the end\n');
    expect(editToml(`${inline} # keep\nusername = "bob"\n`, { limits: [] })).toBe(
      'limits = [] # keep\nusername = "bob"\n',
    );
  });

  it.each(["\n", "\r\n"])("replaces sections by sections in their place, with line ends %j", (end) => {
    const before = [
      'username = "bob"',
      "",
      "[[limits]]",
      "max = 1",
      "[[limits]]",
      "max = 2",
      "",
      "# notes",
      "[metadata]",
    ];
    const section = ["[[limits]]", 'metric = "requests"', 'per = "day"', "max = 5"];
    const text = [...before, "a = 1", "", "# end", ""].join(end);
    expect(editToml(text, { limits, metadata: { b: { c: 2 } } })).toBe(
      [before[0], "", ...section, "", "# notes", "[metadata.b]", "c = 2", "", "# end", ""].join(end),
    );
    expect(editToml(text, { limits: undefined, metadata: undefined })).toBe(
      [before[0], "", "", "# notes", "", "# end", ""].join(end),
    );
    expect(parse(editToml(text, { limits: [] }))).toEqual({ username: "bob", limits: [], metadata: { a: 1 } });
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

import { fc } from "../support/fast-check.ts";
import { describe, expect, it } from "vitest";
import { createLineFinder } from "../../src/config/toml-lines.ts";

const text = `# a comment with [brackets]
title = "x"
[server]
port = 1 # "quoted
"host.name" = '''
[not.a.table]
port = 2
'''
[quota.tiers.basic]
limits = [
  { metric = "tokens", max = 1 }, # ]
  { metric = "cost", max = "]]" },
]
after = 1
[[providers]]
name = "a"
[providers.model_map]
x = "y"
[[providers]]
name = "b"
retry.attempts = 3
[[providers.rules]]
[[providers.rules]]
max = 1
`;

describe("lines of TOML", () => {
  const lineOf = createLineFinder(text);
  it.each([
    ["title", 2],
    ["server", 3],
    ["server.port", 4],
    ["server.host", 3],
    ["quota.tiers.basic.limits.1.max", 10],
    ["quota.tiers.basic.after", 14],
    ["quota", 9],
    ["providers.0.name", 16],
    ["providers.0.model_map.x", 18],
    ["providers.1", 19],
    ["providers.1.name", 20],
    ["providers.1.retry.attempts", 21],
    ["providers.1.api_key_env", 19],
    ["providers.1.rules.0.max", 22],
    ["providers.1.rules.1.max", 24],
    ["not.a.table", undefined],
    ["missing", undefined],
  ])("%s is at %s", (path, line) => {
    expect(lineOf(path.split("."))).toBe(line);
  });

  it("finds a quoted key, and what is not closed ends with the text", () => {
    expect(lineOf(["server", "host.name"])).toBe(5);
    expect(createLineFinder('a = """\nb = 1')(["b"])).toBeUndefined();
    expect(createLineFinder("a = [\n[b]\n")(["b"])).toBeUndefined();
  });

  it("reads any text in one pass", () => {
    const piece = fc.constantFrom(
      '"',
      "'",
      '"""',
      "'''",
      "[",
      "]",
      "[[",
      "{",
      "}",
      "=",
      "#",
      "\\",
      ".",
      "a",
      " ",
      "\n",
    );
    fc.assert(
      fc.property(fc.array(piece), (pieces) => {
        const line = createLineFinder(pieces.join(""))(["a"]);
        expect(line === undefined || line >= 1).toBe(true);
      }),
    );
  });
});

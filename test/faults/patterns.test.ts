import { join } from "node:path";
import { ESLint } from "eslint";
import { describe, expect, it } from "vitest";
import { createRedaction } from "../../src/events/redaction.ts";

const root = join(import.meta.dirname, "../..");

describe("I1: the lint", () => {
  const eslint = new ESLint({ cwd: root });
  /** In a script, for which no types need be worked out; the rule is the same. */
  const findings = async (pattern: string): Promise<readonly (string | null)[]> => {
    const [result] = await eslint.lintText(`export const pattern = ${pattern};\n`, { filePath: "scripts/any.mjs" });
    return result?.messages.map(({ ruleId }) => ruleId) ?? [];
  };

  it.each(["/^(a+)+$/", "/^(?:x+y?)*$/", "/^(.*?),(.*?),(.*)x$/", "/^\\s*(\\S+\\s*)*$/"])(
    "refuses %s, which goes back and forth",
    async (pattern) => {
      expect(await findings(pattern)).toContain("regexp/no-super-linear-backtracking");
    },
  );

  it("refuses /^(x|x)*$/, which goes two ways for each letter", async () => {
    expect(await findings("/^(x|x)*$/")).toContain("regexp/no-dupe-disjunctions");
  });

  it.each(["/\\s+$/", "/[^.]+!/"])("refuses %s, which begins again at each letter", async (pattern) => {
    expect(await findings(pattern)).toContain("regexp/no-super-linear-move");
  });

  it.each(["/^[a-z0-9][a-z0-9_-]{0,31}$/", "/(?<!\\/)\\/+$/"])("lets %s pass", async (pattern) => {
    expect(await findings(pattern)).toEqual([]);
  });

  it.each(["src/http/schemas/usage.ts", "src/main.ts", "src/cli/main.ts", "src/http/routes/chat.ts"])(
    "covers %s",
    async (file) => {
      const { rules } = await eslint.calculateConfigForFile(join(root, file));
      expect(rules["regexp/no-super-linear-backtracking"]).toMatchObject([2, { report: "potential" }]);
      expect(rules["regexp/no-super-linear-move"]).toMatchObject([2, { report: "potential" }]);
    },
  );
});

describe("I1: the redaction of texts that clients choose", () => {
  const redact = createRedaction({ stacks: false });
  const messageOf = (text: string): unknown => redact({ err: new Error(text) }).err;

  // A pattern that goes over these again and again needs hours.
  it.each(["eyJ-", "-eyJ", "://:", "a://b:", ":", "Bearer ", "sk-", "eyJa.", "@:", "x-"])(
    "reads %s 200,000 times over in one go",
    (piece) => {
      expect(messageOf(piece.repeat(200_000))).toMatchObject({ type: "Error" });
    },
  );

  it("still finds what it is there for", () => {
    const text = "key-eyJhbGciOi.eyJzdWIi.c2ln of https://user:pa:ss@host and x.eyJhbGci.eyJzdWIi.c2ln";
    expect(messageOf(text)).toMatchObject({
      message: "[redacted] of https://[redacted]@host and x.[redacted]",
    });
    expect(messageOf("monkeyJar.txt at a.b.c")).toMatchObject({ message: "monkeyJar.txt at a.b.c" });
  });
});

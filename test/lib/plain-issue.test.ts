import { describe, expect, it } from "vitest";
import { z } from "zod";
import { plainIssue } from "../../src/lib/plain-issue.ts";

const messageOf = (schema: z.ZodType, value: unknown): string =>
  plainIssue(schema.safeParse(value).error?.issues[0]?.message ?? "");

describe("the message for a wrong field", () => {
  it("says that a field is missing, or what was expected instead", () => {
    const schema = z.object({ name: z.string() });
    expect(messageOf(schema, {})).toBe("is missing; expected string");
    expect(messageOf(schema, { name: 5 })).toBe("expected string, received number");
    expect(messageOf(z.object({ name: z.string("A name, please.") }), {})).toBe("A name, please.");
  });

  it.each([
    [z.int(), 1.5, "expected a whole number"],
    [z.int(), "1", "expected number, received string"],
    [z.number().min(1), 0, "expected at least 1"],
    [z.number().gt(0), 0, "expected more than 0"],
    [z.number().max(5), 6, "expected at most 5"],
    [z.string().max(3), "four", "expected at most 3 characters"],
    [z.string().min(1), "", "expected at least 1 character"],
    [z.array(z.int()).max(2), [1, 2, 3], "expected at most 2 items"],
  ])("says a bound in words: %#", (schema, value, message) => {
    expect(messageOf(schema, value)).toBe(message);
  });
});

import { describe, expect, it } from "vitest";
import { z } from "zod";
import { plainIssue } from "../../src/config/explain.ts";

const messageOf = (schema: z.ZodType, value: unknown): string =>
  plainIssue(schema.safeParse(value).error?.issues[0]?.message ?? "");

describe("the message for a wrong field", () => {
  it("says that a field is missing, or what was expected instead", () => {
    const schema = z.object({ name: z.string() });
    expect(messageOf(schema, {})).toBe("is missing; expected string");
    expect(messageOf(schema, { name: 5 })).toBe("expected string, received number");
    expect(messageOf(z.object({ name: z.string("A name, please.") }), {})).toBe("A name, please.");
  });
});

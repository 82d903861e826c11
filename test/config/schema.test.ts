import { describe, expect, it } from "vitest";
import { configSchema } from "../../src/config/schema.ts";
import { readFileSync } from "node:fs";
import { problemsOf } from "./support.ts";

/** A schema as far as it has to be known to walk through it. */
interface Schema {
  readonly description?: string;
  readonly shape?: Readonly<Record<string, Schema>>;
  readonly def: { readonly innerType?: Schema; readonly element?: Schema; readonly valueType?: Schema };
}

/** The paths of all keys that hold a value and say nothing about it. */
function undescribed(schema: Schema, path: string, isDescribed = false): string[] {
  const described = isDescribed || schema.description !== undefined;
  const { innerType, element, valueType } = schema.def;
  if (innerType !== undefined) return undescribed(innerType, path, described);
  if (schema.shape !== undefined) {
    return Object.entries(schema.shape).flatMap(([key, child]) => undescribed(child, `${path}.${key}`));
  }
  const inner = element ?? valueType;
  return [...(described || path === "" ? [] : [path]), ...(inner === undefined ? [] : undescribed(inner, path, true))];
}

describe("the config's schema", () => {
  it("describes every key", () => {
    const lists = ["providers", "limits", "oidc"];
    const missing = undescribed(configSchema as unknown as Schema, "").map((path) => path.slice(1));
    expect(missing.filter((path) => !lists.includes(path))).toEqual([]);
  });

  it("takes an empty file, and the one that the project comes with", () => {
    expect(problemsOf("")).toEqual([]);
    expect(problemsOf(readFileSync(new URL("../../config.toml", import.meta.url), "utf8"))).toEqual([]);
  });
});

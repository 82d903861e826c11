import { mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { checkUserFiles } from "../../src/identity/files/check-user-files.ts";
import { errorTable } from "../../src/errors.ts";
import { startProxy, userFile, type RunningProxy } from "../support/start-proxy.ts";
import { tempDir } from "../support/temp-dir.ts";

interface Schema {
  readonly $ref?: string;
  readonly enum?: readonly string[];
  readonly anyOf?: readonly Schema[];
  readonly properties?: Readonly<Record<string, Schema>>;
}

interface Operation {
  readonly security?: readonly unknown[];
  readonly responses: Readonly<
    Record<string, { readonly content?: Readonly<Record<string, { readonly schema: Schema }>> }>
  >;
}

describe("O7: the OpenAPI document", () => {
  let proxy: RunningProxy;
  let operations: readonly (readonly [string, Operation])[];
  let schemas: Readonly<Record<string, Schema>>;
  let text: string;

  beforeAll(async () => {
    proxy = await startProxy();
    text = await (await fetch(`${proxy.url}/openapi.json`)).text();
    const document = JSON.parse(text) as {
      paths: Record<string, Record<string, Operation>>;
      components: { schemas: Record<string, Schema> };
    };
    schemas = document.components.schemas;
    operations = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => [`${method} ${path}`, operation] as const),
    );
  });

  afterAll(() => proxy.dispose());

  const jsonSchema = (operation: Operation, status: string): Schema => {
    const schema = operation.responses[status]?.content?.["application/json"]?.schema ?? {};
    return schema.$ref === undefined ? schema : (schemas[schema.$ref.split("/").at(-1) ?? ""] ?? {});
  };

  it("has a 401 for each route that needs a token, and errors for all", () => {
    for (const [name, operation] of operations) {
      if (operation.security === undefined)
        expect(jsonSchema(operation, "401").properties, name).toHaveProperty("error");
      for (const status of ["4XX", "5XX"])
        expect(jsonSchema(operation, status).properties, name).toHaveProperty("error");
    }
  });

  it("has Anthropic's errors where they are sent, and only there", () => {
    for (const [name, operation] of operations) {
      const isAnthropic = /\/anthropic\/|\/v1\/messages/.test(name);
      expect(jsonSchema(operation, "4XX").properties?.type !== undefined, name).toBe(isAnthropic);
    }
  });

  it("has every code of the table", () => {
    const codes = Object.keys(errorTable).sort();
    for (const [name, operation] of operations) {
      const { code } = jsonSchema(operation, "4XX").properties?.error?.properties ?? {};
      const listed = code?.enum ?? code?.anyOf?.find((one) => one.enum !== undefined)?.enum ?? [];
      expect([...listed].sort(), name).toEqual(codes);
    }
  });

  it("tells which answers may be event streams", () => {
    const streaming = operations.filter(
      ([, { responses }]) => responses["200"]?.content?.["text/event-stream"] !== undefined,
    );
    const names = streaming.map(([name]) => name);
    for (const path of ["/v1/chat/completions", "/chat/completions", "/v1/completions", "/anthropic/v1/messages"]) {
      expect(names).toContain(`post ${path}`);
    }
    expect(names.filter((name) => /embeddings|count_tokens|get /.test(name))).toEqual(["get /admin/events"]);
  });

  it("has no pattern that other languages can't read", () => {
    const patterns: string[] = [];
    JSON.parse(text, (key, value: unknown) => {
      if (key === "pattern" && typeof value === "string") patterns.push(value);
      return value;
    });
    for (const pattern of patterns) {
      // Without the flag u, as most validators compile them; no look-around, no back references, no \p.
      expect(() => new RegExp(pattern)).not.toThrow();
      expect(pattern).not.toMatch(/\\[pP]\{|\(\?<?[=!]|\\[1-9]|\\k/);
    }
  });
});

describe("O7: --check", () => {
  it("names every user file that can't be used, and leaves all as they are", async () => {
    const folder = tempDir();
    await mkdir(join(folder, "users"));
    const users = join(folder, "users");
    const write = (name: string, content: string) => writeFile(join(users, name), content);
    await write("alice.toml", userFile("alice", "a long password"));
    await write("bob.toml", userFile("bob", "a long password").replace("basic", "gone"));
    await write("carol.toml", "username = ");
    await write("dave.toml", userFile("other", "a long password"));
    await write("alice.quota.toml", "whatever");
    await symlink(join(users, "alice.toml"), join(users, "eve.toml"));
    const problems = await checkUserFiles(users, ["basic", "premium"]);
    expect(problems.map((line) => /(\w+)\.toml: /.exec(line)?.[1])).toEqual(["bob", "carol", "dave", "eve"]);
    expect(problems[0]).toMatch(/quota_tier: expected a tier of config.toml: basic, premium/);
    expect(problems.join()).not.toContain("a long password");
    expect(await checkUserFiles(join(folder, "none"), ["basic"])).toEqual([]);
  });
});

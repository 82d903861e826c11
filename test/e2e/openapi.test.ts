import { afterAll, beforeAll, expect, it } from "vitest";
import { bearer, startProxy, type RunningProxy } from "../support/start-proxy.ts";

interface Media {
  readonly example?: unknown;
  readonly examples?: Readonly<Record<string, { readonly value: unknown }>>;
}

interface Operation {
  readonly operationId: string;
  readonly requestBody?: {
    readonly content: Readonly<Record<string, Media>>;
  };
  readonly responses: Readonly<Record<string, { readonly content?: Readonly<Record<string, unknown>> }>>;
}

interface Document {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
}

let proxy: RunningProxy;
let document: Document;

beforeAll(async () => {
  proxy = await startProxy({ config: '[models.aliases]\n"text-embedding-3-small" = "deepseek-flash"\n' });
  document = (await (await fetch(`${proxy.url}/openapi.json`)).json()) as Document;
});

afterAll(() => proxy.dispose());

function operations() {
  return Object.entries(document.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => ({ method, path, operation })),
  );
}

it("names each operation once, and the errors that everybody may meet", () => {
  const all = operations();
  expect(new Set(all.map(({ operation }) => operation.operationId)).size).toBe(all.length);
  for (const { path, operation } of all) {
    expect(Object.keys(operation.responses), path).toEqual(expect.arrayContaining(["4XX", "5XX"]));
    if (operation.requestBody !== undefined) expect(operation.responses["415"], path).toBeDefined();
    if (path.startsWith("/admin/")) expect(operation.responses["403"], path).toBeDefined();
  }
});

it("has examples that work, in one of the content types that it declares", async () => {
  const token = await proxy.login();
  const examples = operations().flatMap(({ method, path, operation }) =>
    Object.values(operation.requestBody?.content ?? {}).flatMap(
      ({ example, examples = { only: { value: example } } }) =>
        Object.values(examples).map(({ value: body }) => ({ method, path, operation, body })),
    ),
  );
  expect(examples.filter(({ body }) => body !== undefined).length).toBeGreaterThanOrEqual(20);
  const tried = examples.map(async ({ method, path, operation, body }) => {
    if (body === undefined) return;
    const answer = await fetch(`${proxy.url}${path}`, {
      method,
      headers: { ...bearer(token), "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    const text = await answer.text();
    expect(answer.status, `${path}: ${text}`).toBe(200);
    const type = answer.headers.get("content-type")?.split(";")[0] ?? "";
    expect(Object.keys(operation.responses["200"]?.content ?? {})).toContain(type);
  });
  await Promise.all(tried);
});

it("answers a wrong method with the right ones", async () => {
  const allow = async (method: string, path: string) => {
    const { status, headers } = await fetch(`${proxy.url}${path}`, { method });
    return [status, headers.get("allow")];
  };
  expect(await allow("GET", "/v1/responses")).toEqual([426, "POST"]);
  expect(await allow("GET", "/panel/api/login")).toEqual([405, "POST"]);
  expect(await allow("GET", "/panel/api/nothing")).toEqual([404, null]);
});

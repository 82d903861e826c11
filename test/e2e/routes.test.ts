import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { rawRequest, sendRaw } from "../support/raw-http.ts";
import { answerOf, expectRefusal } from "../support/refusals.ts";
import { routesOf, type Route } from "../support/routes.ts";
import { bearer, startProxy, type RunningProxy } from "../support/start-proxy.ts";

/** Who needs no token. Whoever adds a line here opens a door. */
const open = [
  "POST /auth/login",
  "POST /auth/register",
  "POST /auth/refresh",
  "POST /auth/logout",
  "POST /panel/api/login",
  "POST /panel/api/logout",
  "GET /",
  "GET /panel",
  "GET /panel/*",
  "GET /healthz",
  "GET /livez",
  "GET /readyz",
  "GET /metrics",
  "GET /openapi.json",
  "GET /docs",
  "GET /v1/responses",
  "GET /responses",
  "GET /panel/api/oidc",
  "GET /panel/api/oidc/:name/start",
  "GET /panel/api/oidc/:name/callback",
];

/** What costs something. */
const billed = [
  "POST /chat/completions",
  "POST /v1/chat/completions",
  "POST /beta/chat/completions",
  "POST /completions",
  "POST /v1/completions",
  "POST /beta/completions",
  "POST /anthropic/v1/messages",
  "POST /v1/messages",
  "POST /v1/responses",
  "POST /responses",
  "POST /embeddings",
  "POST /v1/embeddings",
];

/** Not in the documents: it is them, or only refuses. */
const hidden = [
  "GET /openapi.json",
  "GET /docs",
  "GET /v1/responses",
  "GET /responses",
  "GET /",
  "GET /panel",
  "GET /panel/*",
];

describe("the routes of the app", () => {
  let proxy: RunningProxy;
  let routes: readonly Route[];

  beforeAll(async () => {
    proxy = await startProxy({ env: { METRICS_TOKEN: "metrics-token-of-this-test" } });
    routes = routesOf(proxy.server.app);
  });

  afterAll(() => proxy.dispose());

  const nameOf = ({ method, path }: Route): string => `${method.replace("HEAD", "GET")} ${path}`;

  async function openApi(): Promise<Record<string, unknown>> {
    return (await (await fetch(`${proxy.url}/openapi.json`)).json()) as Record<string, unknown>;
  }

  it("are all found", () => {
    const names = routes.map(nameOf);
    expect(names.length).toBeGreaterThanOrEqual(14);
    for (const name of [...open, ...billed, "GET /auth/quota"]) expect(names).toContain(name);
    // Each that was found is really there, so the list has been read rightly.
    for (const { method, path } of routes) expect(proxy.server.app.hasRoute({ method: method, url: path })).toBe(true);
  });

  it("need a token, but for the few that are named public", async () => {
    const withoutToken = await Promise.all(
      routes.map(async (route) => {
        const answer = await fetch(`${proxy.url}${route.path.replace(/:\w+/g, "x")}`, {
          method: route.method,
          ...(route.method === "GET" || route.method === "HEAD"
            ? {}
            : { headers: { "content-type": "application/json" }, body: "{}" }),
        });
        return { route, answer: await answerOf(answer) };
      }),
    );
    for (const { route, answer } of withoutToken) {
      if (open.includes(nameOf(route))) expect(answer.status, nameOf(route)).not.toBe(401);
      else if (route.method === "HEAD") expect(answer.status, nameOf(route)).toBe(401);
      else expectRefusal(proxy, answer, "missing_token");
    }
  });

  it("ask for the token before they read a byte of the body", async () => {
    for (const { method, path } of routes.filter((route) => !open.includes(nameOf(route)))) {
      const connection = sendRaw(proxy.url, rawRequest(`${method} ${path}`, ["Content-Length: 1000000"]));
      if (method === "HEAD") continue;
      expectRefusal(proxy, await connection.answer(), "missing_token");
      connection.socket.destroy();
    }
  });

  it("show metrics to allowed addresses and to the bearer of the metrics token alone", async () => {
    const guarded = await startProxy({
      config: '[metrics]\nallow = ["203.0.113.7"]\n',
      // As a file has it that ends in a line break.
      env: { METRICS_TOKEN: "metrics-token-of-this-test\n" },
    });
    const get = (path: string, headers: Record<string, string> = {}): Promise<Response> =>
      fetch(`${guarded.url}${path}`, { headers });
    for (const headers of [{}, { "x-forwarded-for": "203.0.113.7" }, bearer(await guarded.login()), bearer("")]) {
      expectRefusal(guarded, await answerOf(await get("/metrics", headers)), "address_not_allowed");
    }
    expect((await get("/metrics", bearer("metrics-token-of-this-test"))).status).toBe(200);
    expect((await get("/metrics", { authorization: "bearer  metrics-token-of-this-test" })).status).toBe(200);
    expect((await get("/metrics", { authorization: "Basic metrics-token-of-this-test" })).status).toBe(403);
    expect(await (await get("/healthz")).json()).toEqual({ status: "ok" });
    await guarded.dispose();
  });

  it("are all to be read at /docs, a page that loads nothing", async () => {
    const answer = await fetch(`${proxy.url}/docs`);
    expect(answer.headers.get("content-type")).toBe("text/html; charset=utf-8");
    expect(answer.headers.get("content-security-policy")).toContain("default-src 'none'");
    const page = await answer.text();
    for (const [path, item] of Object.entries((await openApi()).paths as Record<string, object>)) {
      for (const method of Object.keys(item)) {
        expect(page).toContain(`<code class="method">${method.toUpperCase()}</code><code>${path}</code>`);
      }
    }
    expect(page).not.toMatch(/<script|src=|https?:\/\//);
  });

  it("are all in /openapi.json, and nothing else is", async () => {
    const { paths } = (await openApi()) as { paths: Record<string, Record<string, unknown>> };
    const documented = Object.entries(paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    );
    const existing = routes
      .filter(({ method }) => method !== "HEAD")
      .map((route) => nameOf(route).replace(/:(\w+)/g, "{$1}"));
    expect(documented.sort()).toEqual(existing.filter((name) => !hidden.includes(name)).sort());
  });

  it("are documented as OpenAPI 3.1 asks for", async () => {
    const document = await openApi();
    expect(document).toMatchObject({
      openapi: expect.stringMatching(/^3\.1\.\d+$/),
      info: { title: expect.any(String), version: expect.any(String) },
    });
    const { paths, components } = document as {
      paths: Record<string, Record<string, Operation>>;
      components: { securitySchemes: Record<string, unknown> };
    };
    expect(document.security).toEqual([{ bearer: [] }, { panel: [] }]);
    expect(components.securitySchemes).toHaveProperty("bearer");
    for (const [path, methods] of Object.entries(paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        const name = `${method.toUpperCase()} ${path}`;
        expect(operation.summary, name).toBeTypeOf("string");
        const isOpen = open.includes(name.replace(/\{(\w+)\}/g, ":$1"));
        expect(operation.security, name).toEqual(isOpen ? [] : undefined);
        expect(Object.keys(operation.responses).length, name).toBeGreaterThan(0);
        for (const [status, response] of Object.entries(operation.responses)) {
          expect(status, name).toMatch(/^([1-5]\d\d|[1-5]XX|default)$/);
          expect(response.description, name).toBeTypeOf("string");
        }
        if (operation.requestBody !== undefined) {
          expect(Object.keys(operation.requestBody.content), name).toEqual(["application/json"]);
          expect(operation.requestBody.content["application/json"]?.schema, name).toBeTypeOf("object");
        }
        const inPath = [...path.matchAll(/\{(\w+)\}/g)].map(([, parameter]) => parameter);
        const declared = (operation.parameters ?? []).filter(({ in: place }) => place === "path");
        expect(
          declared.map((parameter) => parameter.name),
          name,
        ).toEqual(inPath);
      }
    }
    expect(danglingReferences(document)).toEqual([]);
  });
});

interface Operation {
  readonly summary?: string;
  readonly security?: readonly unknown[];
  readonly parameters?: readonly { readonly in: string; readonly name: string }[];
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema?: unknown }>> };
  readonly responses: Readonly<Record<string, { readonly description?: string }>>;
}

/** All `$ref`s of a document that lead nowhere in it. */
function danglingReferences(document: unknown): string[] {
  const found: string[] = [];
  JSON.stringify(document, (key, value: unknown) => {
    if (key === "$ref" && typeof value === "string" && !resolves(document, value)) found.push(value);
    return value;
  });
  return found;
}

function resolves(document: unknown, reference: string): boolean {
  let place: unknown = document;
  for (const step of reference.replace(/^#\//, "").split("/")) {
    if (typeof place !== "object" || place === null || !Object.hasOwn(place, step)) return false;
    place = (place as Record<string, unknown>)[step];
  }
  return reference.startsWith("#/");
}

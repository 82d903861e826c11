import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { routeGroupOf } from "../../src/http/plugins/errors.ts";
import { decodeLedgerRecord } from "../../src/quota/memory/charge-record.ts";
import { eventually } from "../support/eventually.ts";
import { journalFiles } from "../support/journal.ts";
import { bearer, post, startProxy, type RunningProxy } from "../support/start-proxy.ts";

const chat = { model: "deepseek-flash", stream: false, messages: [{ role: "user", content: "Hello" }] };

async function started(): Promise<RunningProxy> {
  const proxy = await startProxy();
  onTestFinished(() => proxy.dispose());
  return proxy;
}

/** Ledger records of the proxy's journal, in order. */
async function recordsOf(proxy: RunningProxy) {
  const texts = await Promise.all(journalFiles(join(proxy.folder, "users")).map((file) => readFile(file, "utf8")));
  return texts
    .join("")
    .split("\n")
    .flatMap((line) => {
      const start = line.indexOf("[");
      return start === -1 ? [] : [decodeLedgerRecord(line.slice(start))];
    });
}

async function samplesOf(proxy: RunningProxy): Promise<Map<string, number>> {
  const text = await (await fetch(`${proxy.url}/metrics`)).text();
  const lines = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.slice(line.lastIndexOf(" ")))]),
  );
}

/** The metrics that call themselves counters by their name, and the type that they declare. */
async function totalsOf(proxy: RunningProxy): Promise<[string, string][]> {
  const text = await (await fetch(`${proxy.url}/metrics`)).text();
  return text
    .split("\n")
    .filter((line) => line.startsWith("# TYPE"))
    .map((line): [string, string] => [line.split(" ")[2] ?? "", line.split(" ")[3] ?? ""])
    .filter(([name]) => name.endsWith("_total"));
}

describe("O1: a charge can be traced", () => {
  test("the journal, the log and the behaviour log know a request by its X-Request-ID, and name its API key", async () => {
    const proxy = await started();
    const token = await proxy.login();
    const made = await post(`${proxy.url}/auth/keys`, { name: "script" }, bearer(token));
    const { id, key } = (await made.json()) as { id: string; key: string };
    const answer = await post(`${proxy.url}/v1/chat/completions`, chat, {
      ...bearer(key),
      "x-request-id": "order-12345",
    });
    expect(answer.status).toBe(200);

    // Over Redis, the journal follows.
    await eventually(async () => {
      const records = await recordsOf(proxy);
      const ids = records.flatMap((record) =>
        record !== undefined && "requestId" in record ? [record.requestId] : [],
      );
      expect(ids).toEqual(["order-12345", "order-12345"]);
    });

    const finished = proxy.logLines.map((line) => JSON.parse(line)).find(({ event }) => event === "chat.finished");
    expect(finished).toMatchObject({ trace_id: "order-12345", key_id: id });

    await proxy.login();
    const day = new Date(Date.now() + 8 * 3600_000).toISOString().slice(0, 10);
    await eventually(async () => {
      const text = await readFile(join(proxy.folder, "logs", "users", "alice", `${day}.jsonl`), "utf8");
      const line = text.split("\n").find((one) => one.includes('"chat.finished"'));
      expect(JSON.parse(line ?? "{}")).toMatchObject({ trace_id: "order-12345", key_id: id });
    });
  });

  test("usage tells API keys apart where it is asked to, and adds them up where not", async () => {
    const proxy = await started();
    const token = await proxy.login();
    const made = await post(`${proxy.url}/auth/keys`, { name: "script" }, bearer(token));
    const { id, key } = (await made.json()) as { id: string; key: string };
    for (const credential of [token, key, key]) {
      await post(`${proxy.url}/v1/chat/completions`, chat, bearer(credential));
    }
    const rowsBy = async (by: string) => {
      const answer = await fetch(`${proxy.url}/auth/usage?by=${by}`, { headers: bearer(token) });
      return ((await answer.json()) as { rows: { requests: number; api_key?: string }[] }).rows;
    };
    expect((await rowsBy("key")).map(({ api_key, requests }) => [api_key, requests])).toEqual([
      ["", 1],
      [id, 2],
    ]);
    expect((await rowsBy("both")).map(({ requests }) => requests)).toEqual([3]);
  });

  test("a request by access token names no key", async () => {
    const proxy = await started();
    await post(`${proxy.url}/v1/chat/completions`, chat, bearer(await proxy.login()));
    const finished = proxy.logLines.map((line) => JSON.parse(line)).find(({ event }) => event === "chat.finished");
    expect(finished).toMatchObject({ key_id: "" });
  });
});

describe("O3: metrics", () => {
  test("successes and errors of all routes are counted, by what the route is for", async () => {
    const proxy = await started();
    const token = await proxy.login();
    await post(`${proxy.url}/v1/chat/completions`, chat, bearer(token));
    await post(`${proxy.url}/v1/chat/completions`, { model: 5 }, bearer(token));
    await fetch(`${proxy.url}/auth/quota`, { headers: bearer(token) });
    await fetch(`${proxy.url}/auth/quota`);
    await fetch(`${proxy.url}/v1/models`, { headers: bearer(token) });
    await fetch(`${proxy.url}/admin/users`, { headers: bearer(token) });
    await fetch(`${proxy.url}/no/such/route`);
    await fetch(`${proxy.url}/livez`);
    const samples = await samplesOf(proxy);
    const count = (code: string, route: string) =>
      samples.get(`proxy_requests_total{status="${code === "ok" ? "ok" : "error"}",code="${code}",route="${route}"}`);
    expect(count("ok", "api")).toBe(1);
    expect(count("invalid_request", "api")).toBe(1);
    expect(count("ok", "auth")).toBe(2);
    expect(count("missing_token", "auth")).toBe(1);
    expect(count("ok", "models")).toBe(1);
    expect(count("forbidden", "admin")).toBe(1);
    expect(count("not_found", "other")).toBe(1);
    expect(count("ok", "ops")).toBe(1);
  });

  test("latency names the provider, tokens and cost the model", async () => {
    const proxy = await started();
    const token = await proxy.login();
    await post(`${proxy.url}/v1/chat/completions`, chat, bearer(token));
    await post(`${proxy.url}/v1/chat/completions`, { ...chat, model: "sim-burst" }, bearer(token));
    const samples = await samplesOf(proxy);
    expect(samples.get('upstream_latency_seconds_count{provider="simulator"}')).toBe(2);
    expect(samples.get('proxy_tokens_total{kind="output",provider="simulator",model="other"}')).toBeGreaterThan(0);
    expect([...samples.keys()].some((series) => series.includes("sim-burst"))).toBe(false);
  });

  test("_total is for counters only", async () => {
    const totals = await totalsOf(await started());
    expect(totals.length).toBeGreaterThan(10);
    expect(totals.filter(([, type]) => type !== "counter")).toEqual([]);
  });

  test.each([
    ["/v1/chat/completions", "api"],
    ["/chat/completions", "api"],
    ["/beta/completions", "api"],
    ["/anthropic/v1/messages", "api"],
    ["/embeddings", "api"],
    ["/v1/models", "models"],
    ["/models", "models"],
    ["/models/*", "models"],
    ["/auth/login", "auth"],
    ["/admin/users/:name", "admin"],
    ["/metrics", "ops"],
    ["/healthz", "ops"],
    [undefined, "other"],
  ])("%s is for %s", (route, group) => {
    expect(routeGroupOf(route)).toBe(group);
  });
});

describe("O4: logs", () => {
  test("a 404 names method and path, without the query", async () => {
    const proxy = await started();
    await fetch(`${proxy.url}/v1/chat/completion?key=secret-in-query`, { method: "PUT" });
    const line = proxy.logLines.map((text) => JSON.parse(text)).find(({ event }) => event === "request.failed");
    expect(line).toMatchObject({ method: "PUT", path: "/v1/chat/completion", code: "not_found" });
    expect(proxy.logLines.join("")).not.toContain("secret-in-query");
  });
});

import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { errorTable } from "../../src/errors.ts";
import { createMetrics } from "../../src/events/metrics.ts";
import { eventually } from "../support/eventually.ts";
import { describeWithPrometheus, promtool, startPrometheus } from "../support/prometheus.ts";
import { bearer, post, startProxy } from "../support/start-proxy.ts";

const root = join(import.meta.dirname, "../..");
const rulesFile = join(root, "deploy/prometheus/rules.yml");
const rules = await readFile(rulesFile, "utf8");
const dashboard = await readFile(join(root, "deploy/grafana/dashboard.json"), "utf8");

/** Every metric that a proxy may have, with those of its process. */
async function allMetrics(): Promise<string> {
  const reasons = { queue_full: 0 };
  const metrics = createMetrics({
    providers: ["p"],
    models: ["m"],
    rules: [],
    version: "1.2.3",
    processMetrics: true,
    gauges: {
      inFlight: () => 0,
      overload: () => ({ level: 0, loopDelayMs: 0 }),
      permitsHeld: () => 0,
      permitsWaiting: () => 0,
      journalUnsynced: () => 0,
      behaviourLog: () => ({ queued: 0, dropped: reasons }),
      alerts: () => ({ queued: 0, dropped: reasons }),
      sinkErrors: () => new Map([["metrics", 0]]),
      sinks: () => [{ name: "feed", queued: 0, dropped: reasons }],
      forwarding: {
        spoolBytes: () => 0,
        forwarders: () => [
          {
            sink: "kafka",
            connected: true,
            lag: { events: 0, bytes: 0 },
            lastSuccessAt: 0,
            lastError: null,
            forwarded: 0,
            lost: {},
          },
        ],
      },
      spans: () => ({ queued: 0, exported: 0, dropped: reasons }),
      providers: () => [{ name: "p", inFlight: 0, cap: 1, asked: 0, failed: 0, retries: 0, keys: [] }],
      logLinesDropped: () => 0,
      trust: () => new Map([["normal", 0]]),
      redis: () => ({ connected: true, inFlight: 0, failed: 0, repeated: 0 }),
      config: () => ({ loadedAt: 0, invalid: null, reloads: { success: 0, failure: 0 } }),
    },
  });
  return (await metrics.scrape(undefined)).text;
}

test("the dashboard, the rules and the docs name metrics, and codes, that exist, and the docs all of them", async () => {
  const text = await allMetrics();
  const known = new Set(Array.from(text.matchAll(/^# TYPE (\S+) (\S+)$/gm), ([, name = ""]) => name));
  for (const [, name = "", type] of text.matchAll(/^# TYPE (\S+) (\S+)$/gm))
    if (type === "histogram") for (const suffix of ["bucket", "sum", "count"]) known.add(`${name}_${suffix}`);
  for (const [, name = ""] of rules.matchAll(/record: (\S+)/g)) known.add(name);
  const docs = await readFile(join(root, "docs/operations.md"), "utf8");
  for (const [, name = ""] of text.matchAll(/^# TYPE (\S+)/gm))
    if (!/^(process|nodejs)_/.test(name)) expect(docs, name).toContain(`\`${name}\``);
  const panels = JSON.parse(dashboard) as { panels: readonly { targets?: readonly { expr: string }[] }[] };
  const expressions = [
    ...panels.panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr)),
    ...Array.from(rules.matchAll(/expr: (?:\|\n((?: {10}.*\n)+)|(.*)\n)/g), ([, block, line]) => block ?? line ?? ""),
  ];
  expect(expressions.length).toBeGreaterThan(60);
  for (const expression of expressions) {
    const bare = expression
      .replace(/\{[^}]*\}|\[[^\]]*\]|"[^"]*"/g, " ")
      .replace(/\b(by|without|on|ignoring)\s*\([^)]*\)/g, " ");
    for (const [name] of bare.matchAll(/[a-z][a-z0-9_:]{2,}(?![a-z0-9_:]*\s*\()/g)) {
      if (["and", "vector", "unless", "bool"].includes(name)) continue;
      expect(known.has(name) || name === "up", `${name} in ${expression}`).toBe(true);
    }
  }
  const [, codes = ""] = /code=~"([^"]+)"/.exec(rules) ?? [];
  const pattern = new RegExp(`^(${codes})$`);
  // Logins of the panel are no calls of the API, and a stop is no failure.
  const isLeftOut = (code: string): boolean => code.startsWith("oidc_") || code === "shutting_down";
  const failures = Object.entries(errorTable).filter(([code, { status }]) => status >= 500 && !isLeftOut(code));
  expect(Object.keys(errorTable).filter((code) => pattern.test(code))).toEqual(failures.map(([code]) => code));
});

describeWithPrometheus("Prometheus", () => {
  test("promtool has nothing to say about the names, the rules, and what they find", async () => {
    // prom-client's own names are not ours.
    const ours = (await allMetrics())
      .split("\n")
      .filter((line) => !/^(# (HELP|TYPE) )?(nodejs|process)_/.test(line))
      .join("\n");
    expect(promtool(["check", "metrics"], ours)).toBe("");
    promtool(["check", "rules", rulesFile]);
    promtool(["test", "rules", join(root, "deploy/prometheus/rules.test.yml")]);
    promtool(["check", "config", join(root, "deploy/prometheus/prometheus.yml")]);
  });

  test("a server scrapes a proxy, evaluates the rules, and an alert fires; exemplars lead to traces", async () => {
    const proxy = await startProxy({ config: '[admin]\nallow = ["127.0.0.1"]', configFile: true });
    onTestFinished(() => proxy.dispose());
    const folder = await mkdtemp(join(tmpdir(), "rules-"));
    onTestFinished(() => rm(folder, { recursive: true, force: true }));
    // The same rules, but that a test doesn't wait minutes for them.
    const fast = join(folder, "rules.yml");
    await writeFile(fast, rules.replaceAll(/for: \d+[ms]/g, "for: 0s").replaceAll("[5m]", "[10s]"));
    const prometheus = await startPrometheus(new URL(proxy.url).host, [fast]);
    const traceId = "0af7651916cd43dd8448eb211c80319c";
    const headers = { ...bearer(await proxy.login()), traceparent: `00-${traceId}-b7ad6b7169203331-01` };
    const chat = { model: "sim-fast", messages: [{ role: "user", content: "hello" }], stream: false };
    // Prometheus needs to see a rise.
    await eventually(async () => {
      expect(JSON.stringify(await prometheus.api("query?query=proxy_build_info"))).toContain("llm-proxy");
    });
    expect((await post(`${proxy.url}/v1/chat/completions`, chat, headers)).status).toBe(200);

    await writeFile(join(proxy.folder, "config.toml"), "this is no config");
    await proxy.services.reload("SIGHUP");
    await eventually(async () => {
      const { alerts } = (await prometheus.api("alerts")) as {
        alerts: { labels: { alertname: string }; state: string }[];
      };
      const firing = alerts.filter(({ state }) => state === "firing").map(({ labels }) => labels.alertname);
      expect(firing).toEqual(["ConfigRefused"]);
    });
    const { groups } = (await prometheus.api("rules")) as { groups: { rules: { name: string; health: string }[] }[] };
    const broken = groups.flatMap((group) => group.rules).filter(({ health }) => health !== "ok");
    expect(broken).toEqual([]);
    await eventually(async () => {
      const query = "query_exemplars?query=proxy_time_to_first_token_seconds_bucket&start=0&end=9999999999";
      expect(JSON.stringify(await prometheus.api(query))).toContain(traceId);
    });
  });
});

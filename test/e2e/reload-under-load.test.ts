import { cp, rename, writeFile } from "node:fs/promises";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { recoverJournal } from "../../src/lib/journal/journal.ts";
import { decodeLedgerRecord } from "../../src/quota/memory/charge-record.ts";
import { startAdminApi } from "../support/admin-api.ts";
import { eventually } from "../support/eventually.ts";
import { openStream, type SseClient } from "../support/sse-client.ts";
import { bearer, type RunningProxy } from "../support/start-proxy.ts";
import { tempDir } from "../support/temp-dir.ts";

const tokens = 1000;
const chunk = (choice: object, usage: object | null): string =>
  `data: ${JSON.stringify({ id: "c", choices: [{ index: 0, ...choice }], usage })}\n\n`;
const first = chunk({ delta: { content: "a" }, finish_reason: null }, null);
const last = `${chunk({ delta: {}, finish_reason: "stop" }, { prompt_tokens: 0, completion_tokens: tokens, total_tokens: tokens })}data: [DONE]\n\n`;

/** A provider that ends its responses to the model "long" when told to, and all others at once. */
async function startProvider() {
  const open = new Set<ServerResponse>();
  const valid = new Set<string>();
  const server = createServer((request, response) => {
    const pieces: Buffer[] = [];
    request.on("data", (piece: Buffer) => pieces.push(piece));
    request.on("end", () => {
      const { authorization = "" } = request.headers;
      if (valid.size > 0 && !valid.has(authorization)) {
        response.writeHead(401).end('{"error":{"message":"no such key"}}');
        return;
      }
      if (request.method === "GET") {
        response.end('{"data":[]}');
        return;
      }
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(first);
      if (Buffer.concat(pieces).includes('"long"')) open.add(response);
      else response.end(last);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    open,
    valid,
    endAll() {
      for (const response of open) response.end(last);
    },
  };
}

function chat(proxy: RunningProxy, token: string, model: string): Promise<SseClient> {
  const body = { model, stream: true, max_tokens: tokens, messages: [{ role: "user", content: "hi" }] };
  return openStream(`${proxy.url}/chat/completions`, { headers: bearer(token), body });
}

async function replace(proxy: RunningProxy, text: string): Promise<void> {
  const path = join(proxy.folder, "config.toml");
  await writeFile(`${path}.new`, text);
  await rename(`${path}.new`, path);
}

/** The final charges in the journal, in nano-units. */
async function journalled(proxy: RunningProxy): Promise<number> {
  const folder = join(tempDir(), "journal");
  await cp(join(proxy.folder, "users", "journal"), folder, { recursive: true });
  let sum = 0;
  await recoverJournal(folder, (_seq, payload) => {
    const record = decodeLedgerRecord(payload);
    if (record?.kind === "settle") sum += record.final.cost;
  });
  return sum;
}

const rest = `[rate_limit]
requests_per_second = 100000
[concurrency]
max_parallel = 1000
[storage]
snapshot_interval_seconds = 3600
[quota.tiers]
basic = {}
`;
const priced = (output: number): string =>
  `${rest}[[models.prices]]\nmodels = ["*"]\ncurrency = "CNY"\ncache_hit = 0\ncache_miss = 0\noutput = ${output}\n`;

describe("500 live streams while config.toml is replaced 100 times", () => {
  it("go on under their own prices, the new ones apply at once, and the books agree", { timeout: 60_000 }, async () => {
    const provider = await startProvider();
    const { proxy, get, post } = await startAdminApi({
      upstreamUrl: provider.url,
      config: priced(1),
      configFile: true,
    });
    const token = await proxy.login();
    const streams: SseClient[] = [];
    while (streams.length < 500) {
      streams.push(...(await Promise.all(Array.from({ length: 50 }, () => chat(proxy, token, "long")))));
    }
    for (const { status } of streams) expect(status).toBe(200);
    let expected = 500;

    for (let round = 1; round <= 50; round++) {
      await replace(proxy, proxy.configText(`${priced(round + 1)}[retry]\nattempts = 0\n`));
      expect((await post("/admin/config/reload")).status).toBe(422);
      await replace(proxy, proxy.configText(priced(round + 1)));
      if (round % 10 > 0) expect((await post("/admin/config/reload")).status).toBe(200);
      else {
        // Nobody says so: it is noticed.
        await eventually(() => {
          expect(proxy.services.policy().config.models.prices[0]?.output).toBe(round + 1);
        });
      }
      expect((await (await chat(proxy, token, "short")).rest()).at(-1)?.data).toBe("[DONE]");
      expected += round + 1;
    }

    provider.endAll();
    for (const stream of streams) {
      expect(await stream.ended).toBe("complete");
      expect(stream.text).toContain("[DONE]");
    }
    // A thousand tokens at `output` for a million: as many million nano-yuan as the price.
    const nano = expected * 1_000_000;
    const finished = proxy.logLines
      .filter((line) => line.includes('"chat.finished"'))
      .map((line) => JSON.parse(line) as { readonly cost_nano: number; readonly outcome: string });
    expect(finished).toHaveLength(550);
    expect(new Set(finished.map(({ outcome }) => outcome))).toEqual(new Set(["completed"]));
    expect(finished.reduce((sum, { cost_nano: cost }) => sum + cost, 0)).toBe(nano);
    expect(await journalled(proxy)).toBe(nano);
    const { body } = await get("/admin/usage?by=user");
    expect(body.rows[0].costs).toEqual([{ cost: String(nano / 1e9), currency: "CNY" }]);
    const metrics = await (await fetch(`${proxy.url}/metrics`)).text();
    // The watcher may have been faster than the administrator, and then there are two.
    for (const result of ["failure", "success"]) {
      const count = new RegExp(`config_reloads_total\\{result="${result}"\\} (\\d+)`).exec(metrics)?.[1];
      expect(Number(count)).toBeGreaterThanOrEqual(50);
    }
  });
});

describe("a provider's key", () => {
  it("is rotated in the config and in its file without a refused request", async () => {
    const provider = await startProvider();
    provider.valid.add("Bearer sk-key-a").add("Bearer sk-key-b");
    const { proxy, post, get } = await startAdminApi({
      config: rest,
      configFile: true,
      env: { KEY_A: "sk-key-a", KEY_B: "sk-key-b" },
    });
    const keyFile = join(proxy.folder, "key");
    await writeFile(keyFile, "sk-key-c\n");
    const configWith = (key: string): string =>
      `${proxy.configText(rest)}[[providers]]\nname = "p"\nkind = "deepseek"\nmodels = ["*"]\nbase_url = "${provider.url}"\n${key}\n`;
    await replace(proxy, configWith('api_key_env = "KEY_A"'));
    expect((await post("/admin/config/reload")).status).toBe(200);
    const token = await proxy.login();

    let ended = false;
    let served = 0;
    const work = async (): Promise<void> => {
      while (!ended) {
        const client = await chat(proxy, token, "short");
        expect(client.status).toBe(200);
        expect((await client.rest()).at(-1)?.data).toBe("[DONE]");
        served++;
      }
    };
    const workers = Promise.all(Array.from({ length: 8 }, work));
    const servedMore = async (): Promise<void> => {
      const before = served;
      await eventually(() => {
        expect(served).toBeGreaterThan(before + 16);
      });
    };
    await servedMore();
    await replace(proxy, configWith('api_key_env = "KEY_B"'));
    expect((await post("/admin/config/reload")).status).toBe(200);
    provider.valid.delete("Bearer sk-key-a");
    await servedMore();
    provider.valid.add("Bearer sk-key-c");
    await replace(proxy, configWith('api_key_file = "key"'));
    expect((await post("/admin/config/reload")).status).toBe(200);
    provider.valid.delete("Bearer sk-key-b");
    await servedMore();
    // In the file alone: the old key is refused at once, and the new one is read before that counts.
    await writeFile(keyFile, "sk-key-d\n");
    provider.valid.add("Bearer sk-key-d").delete("Bearer sk-key-c");
    await servedMore();
    ended = true;
    await workers;
    // One account all the time: its figures and connections live on.
    const [view] = (await get("/admin/providers")).body.providers;
    expect(view.asked).toBeGreaterThanOrEqual(served);
    expect(proxy.logLines.join("")).not.toMatch(/sk-key-[a-d]/);
  });
});

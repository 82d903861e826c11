import { mkdirSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { randomBytes } from "node:crypto";
import { afterEach, describe, expect, it, onTestFinished } from "vitest";
import { followFile } from "../../src/lib/files/followed-file.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { answer, closeAll, open, refuse, serve, setUp } from "../support/failover.ts";
import { eventually } from "../support/eventually.ts";
import { bearer, post, startProxy, type ProxyOptions, type RunningProxy } from "../support/start-proxy.ts";
import { tempDir } from "../support/temp-dir.ts";

afterEach(closeAll);

/** Ways to put another text in a file's place. */
const replacements: readonly [name: string, lay: (file: string, text: string) => void][] = [
  [
    "written over",
    (file, text) => {
      writeFileSync(file, text);
    },
  ],
  [
    "renamed into place",
    (file, text) => {
      writeFileSync(`${file}.new`, text);
      renameSync(`${file}.new`, file);
    },
  ],
  [
    "behind a folder's link that is swapped, as Kubernetes does it",
    (file, text) => {
      const folder = join(file, "..");
      const data = `..${randomBytes(4).toString("hex")}`;
      mkdirSync(join(folder, data));
      writeFileSync(join(folder, data, "key"), text);
      symlinkSync(data, join(folder, "..next"));
      renameSync(join(folder, "..next"), join(folder, "..data"));
      rmSync(file, { force: true });
      symlinkSync(join("..data", "key"), file);
    },
  ],
];

async function start(options: ProxyOptions): Promise<RunningProxy> {
  const proxy = await startProxy(options);
  onTestFinished(() => proxy.dispose());
  return proxy;
}

function chat(proxy: RunningProxy, token: string): Promise<Response> {
  const body = { model: "m", stream: true, messages: [{ role: "user", content: "hi" }] };
  return post(`${proxy.url}/v1/chat/completions`, body, bearer(token));
}

describe("D5: a provider's key file that is replaced while the proxy runs", () => {
  async function setUpProxy(lay: (file: string, text: string) => void) {
    const file = join(tempDir(), "key");
    lay(file, "sk-first\n");
    const valid = new Set(["Bearer sk-first"]);
    const upstream = await serve((response, request) => {
      (valid.has(String(request.headers.authorization)) ? answer : refuse(401))(response, request);
    });
    const proxy = await start({
      users: {
        alice: `username = "alice"\npassword = "correct horse battery"\nquota_tier = "basic"\nmax_parallel = 20\n`,
      },
      config: `[[providers]]\nname = "up"\nkind = "openai"\nbase_url = "${upstream.url}"\nmodels = ["*"]\napi_key_file = "${file}"\n`,
    });
    return { file, valid, upstream, proxy, token: await proxy.login() };
  }

  it.each(replacements)("%s: the first refusal finds the new key, and no request is refused", async (_, lay) => {
    const { file, valid, upstream, proxy, token } = await setUpProxy(lay);
    expect((await chat(proxy, token)).status).toBe(200);
    lay(file, "sk-second\n");
    valid.clear();
    valid.add("Bearer sk-second");
    const answers = await Promise.all(Array.from({ length: 12 }, () => chat(proxy, token)));
    expect(answers.map(({ status }) => status)).toEqual(Array<number>(12).fill(200));
    expect(upstream.asked.at(-1)).toBe("Bearer sk-second");
    expect(proxy.logLines.join("")).not.toMatch(/sk-first|sk-second/);
    expect((await chat(proxy, token)).status).toBe(200);
  });

  it("is sent soon, though nobody refuses the old one", async () => {
    const { file, valid, upstream, proxy, token } = await setUpProxy(writeFileSync);
    valid.add("Bearer sk-second");
    writeFileSync(file, "sk-second");
    await eventually(async () => {
      expect((await chat(proxy, token)).status).toBe(200);
      expect(upstream.asked.at(-1)).toBe("Bearer sk-second");
    });
  });

  it("is read at once when the operator says so", async () => {
    const { file, upstream, proxy, token, valid } = await setUpProxy(writeFileSync);
    valid.add("Bearer sk-second");
    writeFileSync(file, "sk-second");
    void proxy.services.reload("SIGHUP");
    await chat(proxy, token);
    expect(upstream.asked).toEqual(["Bearer sk-second"]);
  });

  it.each([
    ["empty", "\n"],
    ["two keys", "sk-one\nsk-two\n"],
    ["missing", null],
  ])("that is %s changes nothing, and the log names the file and not its text", async (_, text) => {
    const { file, upstream, proxy, token } = await setUpProxy(writeFileSync);
    void proxy.services.reload("SIGHUP");
    if (text === null) unlinkSync(file);
    else writeFileSync(file, text);
    for (let i = 0; i < 3; i++) void proxy.services.reload("SIGHUP");
    expect((await chat(proxy, token)).status).toBe(200);
    expect(upstream.asked).toEqual(["Bearer sk-first"]);
    const warnings = proxy.logLines.filter((line) => line.includes("key_file_unusable"));
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toContain(file);
    expect(warnings[0]).not.toContain("sk-one");
  });
});

describe("D5: a key that is refused", () => {
  it("counts against the provider only where it is still the one in force", async () => {
    const { url, asked } = await serve((response, request) => {
      (request.headers.authorization === "Bearer sk-new" ? answer : refuse(401))(response, request);
    });
    let next = "sk-old";
    const provider = open("up", {
      kind: "openai",
      baseUrl: url,
      apiKey: "sk-old",
      rereadKey: () => {
        provider.useKey(next);
      },
    });
    const { ask, alerts } = setUp({ attempts: 1 });
    await expect(ask([provider])).rejects.toThrow("key_refused");
    expect(alerts).toEqual(["up 0 key_refused"]);
    next = "sk-new";
    expect((await ask([provider])).retries).toBe(0);
    expect(asked).toEqual(["Bearer sk-old", "Bearer sk-old", "Bearer sk-new"]);
    expect(alerts).toHaveLength(1);
    expect(provider.health.accountState(performance.now())).toBe("closed");
  });

  it("is asked a bounded number of times, however often its file changes", async () => {
    const { url, asked } = await serve(refuse(401));
    const provider = open("up", {
      kind: "openai",
      baseUrl: url,
      rereadKey: () => {
        provider.useKey(`sk-${asked.length}`);
      },
    });
    await expect(setUp().ask([provider])).rejects.toThrow("key_refused");
    expect(asked).toHaveLength(2);
  });
});

describe("D5: JWT_SECRETS_FILE that is replaced while the proxy runs", () => {
  it("signs with the new secret, and the old one is good for as long as it is there", async () => {
    const file = join(tempDir(), "jwt");
    const secret = (kid: string): string => `${kid}:${randomBytes(48).toString("base64")}`;
    const [old, young] = [secret("old"), secret("young")];
    writeFileSync(file, old);
    const proxy = await start({ env: { JWT_SECRETS_FILE: file } });
    const status = async (token: string): Promise<number> =>
      (await fetch(`${proxy.url}/auth/quota`, { headers: bearer(token) })).status;
    const kidOf = (token: string): unknown =>
      JSON.parse(Buffer.from(token.split(".")[0] ?? "", "base64url").toString());

    const first = await proxy.login();
    expect(await status(first)).toBe(200);
    writeFileSync(file, `${young}\n${old}\n`);
    void proxy.services.reload("SIGHUP");
    expect(await status(first)).toBe(200);
    // Another program, so that the login is not taken for a repeated one.
    const answer = await post(
      `${proxy.url}/auth/login`,
      { username: "alice", password: "correct horse battery" },
      { "user-agent": "another" },
    );
    const { token: second } = (await answer.json()) as { token: string };
    expect(kidOf(second)).toMatchObject({ kid: "young" });

    writeFileSync(file, young);
    void proxy.services.reload("SIGHUP");
    expect(await status(first)).toBe(401);
    expect(await status(second)).toBe(200);

    writeFileSync(file, "young:short");
    void proxy.services.reload("SIGHUP");
    expect(await status(second)).toBe(200);
    expect(proxy.logLines.some((line) => line.includes("key_file_unusable") && !line.includes("short"))).toBe(true);
  });
});

describe("D5: a followed file", () => {
  it("is not read where it is no plain file: that could wait for ever", () => {
    const log = createCapturedLog();
    const folder = tempDir();
    const file = followFile({ path: folder, onText: () => expect.unreachable(), log });
    onTestFinished(() => {
      file.close();
    });
    file.check();
    expect(log.lines).toMatchObject([{ level: "warn", facts: { file: folder } }]);
  });
});

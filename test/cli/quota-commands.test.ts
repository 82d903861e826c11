import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { runQuotaCli } from "../../src/cli/quota-commands.ts";
import { readAudits } from "../support/admin-api.ts";
import { runCli } from "../support/cli.ts";
import { eventually } from "../support/eventually.ts";
import { quotaOf } from "../support/quota.ts";
import { startProxy, type RunningProxy } from "../support/start-proxy.ts";

const tiers = `[quota.tiers.basic]
limits = [{ metric = "requests", per = "month", max = 10 }, { metric = "cost", per = "total", max = 2 }]
`;

/** A running server whose folder the command works on, too. */
async function useServer(): Promise<{ proxy: RunningProxy; run: (...argv: string[]) => ReturnType<typeof runCli> }> {
  const proxy = await startProxy({ config: tiers });
  onTestFinished(() => proxy.dispose());
  await writeFile(join(proxy.folder, "config.toml"), tiers);
  return { proxy, run: (...argv) => runCli(runQuotaCli, argv, proxy.folder) };
}

/** The same without the server, which has hashed the passwords and stopped. */
async function useFolder() {
  const { proxy, run } = await useServer();
  await proxy.stop();
  return { folder: proxy.folder, run };
}

const because = ["--reason", "a test"];

describe("npm run quota", () => {
  it("names a user file that can't be read, and a name that nobody has", async () => {
    const { folder, run } = await useFolder();
    await writeFile(join(folder, "users", "broken.toml"), 'username = "broken\n');
    for (const args of [["show"], ["grant", "--metric", "requests", "--per", "month", "--amount", "5", ...because]]) {
      const [verb = "", ...options] = args;
      expect((await run(verb, "broken", ...options)).err).toMatch(/^error: .*broken\.toml/);
      expect((await run(verb, "nobody", ...options)).err).toContain('There is no user "nobody".');
    }
  });

  it("names a file of what is used that can't be read", async () => {
    const { folder, run } = await useFolder();
    await writeFile(join(folder, "users", "alice.quota.toml"), 'username = "alice"\n');
    const { code, err } = await run("show", "alice");
    expect(code).toBe(1);
    expect(err).toMatch(/^warning: alice\.quota\.toml: format: is missing; expected number; covers_seq: is missing; /);
    expect(err).toContain("error: What you have used cannot be read");
  });

  it("takes a plus sign in front of what is to be added", async () => {
    const { run } = await useFolder();
    const adjusted = await run("adjust", "alice", "--requests=+7", "--cost=+0.5", ...because);
    expect([adjusted.code, adjusted.err]).toEqual([0, ""]);
    expect(adjusted.out).toContain("requests per month: 7 of 10 used");
    expect(adjusted.out).toContain("cost per total CNY: 0.5 of 2 used");
    for (const wrong of ["++7", "abc", "1.5", "99999999999999999999"]) {
      const { code, err } = await run("adjust", "alice", `--requests=${wrong}`, ...because);
      expect(code).toBe(2);
      expect(err).toMatch(/error: --requests: expected a whole number from -9007199254740991 to 9007199254740991$/);
    }
  });

  it("adjusts and resets what is used, and shows it", async () => {
    const { folder, run } = await useFolder();
    const adjusted = await run("adjust", "alice", "--requests=7", "--cost=0.000000001", ...because);
    expect([adjusted.code, adjusted.err]).toEqual([0, ""]);
    expect(adjusted.out).toMatch(/^requests per month: 7 of 10 used, 3 left, until \d{4}-.*Z\ncost per total CNY: /);
    expect((await run("adjust", "alice", "--requests=-2", ...because)).out).toContain("5 of 10 used, 5 left");
    expect((await run("show", "alice")).out).toContain("cost per total CNY: 0.000000001 of 2 used, 1.999999999 left");
    expect((await run("reset", "alice", "--per", "month", ...because)).out).toContain("0 of 10 used");
    expect((await run("show", "alice")).out).toContain("cost per total CNY: 0.000000001 of 2 used");
    expect(await readAudits(folder)).toMatchObject([
      { action: "quota.adjusted", by: "cli:tester", ip: "", user: "alice", reason: "a test" },
      { action: "quota.adjusted", subject: "requests" },
      { action: "quota.reset", subject: "month" },
    ]);
  });

  it("grants beside a running server, which notices; and refuses what the server has in hand, naming the route", async () => {
    const { proxy, run } = await useServer();
    const token = await proxy.login();
    const granted = await run("grant", "alice", "--metric", "requests", "--per", "month", "--amount", "5", ...because);
    expect(granted).toEqual({ code: 0, out: "requests per month: at most 15\ncost per total CNY: at most 2", err: "" });
    await eventually(async () => {
      expect(await quotaOf(proxy, token)).toMatchObject([{ max: 15 }, { max: 2 }]);
    });
    const shown = await run("show", "alice");
    expect([shown.code, shown.err]).toEqual([0, ""]);
    expect(shown.out).toMatch(
      /^requests per month: at most 15\n.*\n.*GET \/admin\/users\/alice\/quota\ngrant: requests per month: 5 more until \d{4}-.*Z: a test$/,
    );
    for (const [act, option] of [
      ["adjust", "--requests=1"],
      ["reset", "--per=day"],
    ] as const) {
      const { code, err } = await run(act, "alice", option, ...because);
      expect(code).toBe(1);
      expect(err).toContain(`use POST /admin/users/alice/quota/${act}`);
    }
    expect(await readAudits(proxy.folder)).toMatchObject([{ action: "quota.granted", by: "cli:tester" }]);
    expect((await quotaOf(proxy, token))[0]).toMatchObject({ used: 0 });
  });

  it("checks what is asked for as the admin API does, and changes nothing where it is wrong", async () => {
    const { folder, run } = await useFolder();
    const file = join(folder, "users", "alice.toml");
    const before = await readFile(file, "utf8");
    const grant = ["grant", "alice", "--metric", "requests", "--per", "month"];
    for (const [argv, code, err] of [
      [[], 2, "say what to do"],
      [["mend", "alice"], 2, 'no command "mend"'],
      [["show"], 2, "one user name"],
      [["show", "alice", "--per", "day"], 2, "no such option"],
      [["show", "nobody"], 1, 'no user "nobody"'],
      [["show", "../x"], 1, "user name"],
      [[...grant, "--amount", "0", ...because], 2, "--amount"],
      [[...grant, "--amount", "1.5", ...because], 2, "--amount"],
      [[...grant, "--amount", "5"], 2, "--reason"],
      [[...grant, "--amount", "5", "--until", "tomorrow", ...because], 2, "--until"],
      [["grant", "alice", "--metric", "tokens", "--per", "day", "--amount", "5", ...because], 1, "no limit of tokens"],
      [["adjust", "alice", ...because], 2, "--requests"],
      [["adjust", "alice", "--requests=x", ...because], 2, "--requests"],
      [["adjust", "alice", "--requests=0x10", ...because], 2, "--requests"],
      [["adjust", "alice", "--tokens= 5", ...because], 2, "--tokens"],
      [["adjust", "alice", "--cost=0.0000000001", ...because], 2, "--cost"],
      [["adjust", "nobody", "--requests=1", ...because], 1, 'no user "nobody"'],
      [["reset", "alice", "--per", "hour", ...because], 2, "--per"],
      [["reset", "alice", "--amount", "5", "--per", "day", ...because], 2, "amount"],
    ] as const) {
      const result = await run(...argv);
      expect({ argv, code: result.code, err: result.err }).toEqual({
        argv,
        code,
        err: expect.stringContaining(err) as unknown,
      });
    }
    expect(await readFile(file, "utf8")).toBe(before);
    expect(await readAudits(folder)).toEqual([]);
  });

  it("tells of its usage", async () => {
    const { run } = await useFolder();
    expect(await run("--help")).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^Usage: npm run quota/) as unknown,
    });
  });
});

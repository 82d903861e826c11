import { spawn, spawnSync, type ChildProcess, type StdioOptions } from "node:child_process";
import { once } from "node:events";
import { closeSync, constants, existsSync, mkdirSync, openSync, readFileSync, readSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { eventually } from "../support/eventually.ts";
import { compiledServer, spawnServer, startServerProcess } from "../support/server-process.ts";
import { tempDir } from "../support/temp-dir.ts";

let code = "";
beforeAll(() => {
  code = compiledServer();
}, 60_000);

/** A folder with a config; nothing has to be paid for here. */
function folderOf(server = "port = 0"): string {
  const folder = tempDir();
  mkdirSync(join(folder, "users"));
  writeFileSync(join(folder, "config.toml"), `[server]\n${server}\n`);
  return folder;
}

function run(folder: string, stdio: StdioOptions): ChildProcess {
  const args = [join(code, "main.js"), "--config", join(folder, "config.toml")];
  const child = spawn(process.execPath, args, { stdio, env: { PATH: process.env.PATH } });
  onTestFinished(() => {
    child.kill("SIGKILL");
  });
  return child;
}

/** The address in the line that says so; "" while there is none. */
function urlIn(text: string): string {
  return /"url":"([^"]+)"/.exec(text)?.[1] ?? "";
}

/** A pipe with both of its ends; reading never waits. */
function pipe(): { readonly writer: number; read(): string; closeReader(): void } {
  const path = join(tempDir(), "pipe");
  spawnSync("mkfifo", [path]);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const writer = openSync(path, constants.O_WRONLY);
  onTestFinished(() => {
    closeSync(writer);
  });
  return {
    writer,
    read() {
      const bytes = Buffer.alloc(64 << 10);
      try {
        return bytes.toString("utf8", 0, readSync(reader, bytes));
      } catch {
        return "";
      }
    },
    closeReader() {
      closeSync(reader);
    },
  };
}

/** Makes the proxy log more than any pipe or socket holds: each refused request is a line. */
async function logALot(url: string): Promise<void> {
  const { hostname, port } = new URL(url);
  const count = 1500;
  const socket = connect(Number(port), hostname);
  socket.write("GET /auth/quota HTTP/1.1\r\nhost: x\r\n\r\n".repeat(count));
  let answers = 0;
  let last = "";
  for await (const piece of socket as AsyncIterable<Buffer>) {
    const text = last + piece.toString("latin1");
    answers += text.split("HTTP/1.1 401").length - 1;
    // What may be the beginning of another one.
    last = text.slice(-11);
    if (answers === count) break;
  }
  expect(answers).toBe(count);
}

describe("D2: standard output that nobody reads", () => {
  /** What to end it with, and the exit code to come of it. */
  const endings: readonly [name: string, end: (child: ChildProcess, folder: string) => void, exitCode: number][] = [
    ["SIGTERM", (child) => child.kill("SIGTERM"), 0],
    [
      "a lost lock",
      (_, folder) => {
        writeFileSync(join(folder, "users", ".lock"), '{"another":true}');
      },
      70,
    ],
  ];

  it.each(endings)("holds up neither requests nor the end by %s: a pipe", async (_, end, exitCode) => {
    const folder = folderOf();
    const out = pipe();
    const child = run(folder, ["ignore", out.writer, "ignore"]);
    const exited = once(child, "exit");
    let text = "";
    await eventually(() => {
      text += out.read();
      expect(urlIn(text)).not.toBe("");
    }, 20_000);
    await logALot(urlIn(text));
    end(child, folder);
    expect(await exited).toEqual([exitCode, null]);
  });

  it.each(endings.slice(0, 1))("holds up neither requests nor the end by %s: a socket", async (_, end, exitCode) => {
    const folder = folderOf();
    // Node gives its children sockets for pipes.
    const child = run(folder, ["ignore", "pipe", "ignore"]);
    const exited = once(child, "exit");
    let text = "";
    const listen = (piece: Buffer): void => void (text += piece.toString());
    child.stdout?.on("data", listen);
    await eventually(() => {
      expect(urlIn(text)).not.toBe("");
    }, 20_000);
    child.stdout?.off("data", listen).pause();
    await logALot(urlIn(text));
    end(child, folder);
    expect(await exited).toEqual([exitCode, null]);
  });

  it("loses lines and nothing else where the reader goes away, or where a file is full", async () => {
    const folder = folderOf();
    const out = pipe();
    const child = run(folder, ["ignore", out.writer, "ignore"]);
    const exited = once(child, "exit");
    let text = "";
    await eventually(() => {
      text += out.read();
      expect(urlIn(text)).not.toBe("");
    }, 20_000);
    out.closeReader();
    const url = urlIn(text);
    for (let i = 0; i < 5; i++) expect((await fetch(`${url}/auth/quota`)).status).toBe(401);
    await eventually(async () => {
      expect(await (await fetch(`${url}/metrics`)).text()).toMatch(/^log_lines_dropped_total [1-9]/m);
    });
    child.kill("SIGTERM");
    expect(await exited).toEqual([0, null]);

    const full = openSync("/dev/full", "w");
    const second = run(folder, ["ignore", full, "ignore"]);
    closeSync(full);
    const ended = once(second, "exit");
    await eventually(() => {
      expect(existsSync(join(folder, "users", ".lock"))).toBe(true);
    }, 20_000);
    second.kill("SIGTERM");
    expect(await ended).toEqual([0, null]);
  });
});

describe("D3: a start that fails", () => {
  it("releases the lock, and says why", async () => {
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => {
      other.close();
    });
    const folder = folderOf(`port = ${(other.address() as AddressInfo).port}`);
    const server = spawnServer({ code, folder });
    expect(await server.ended).toEqual({ code: 1, signal: null });
    expect(server.lines.join("\n")).toMatch(/EADDRINUSE.*\nStop what listens there, or choose another port by PORT/);
    expect(existsSync(join(folder, "users", ".lock"))).toBe(false);
  });

  it.each<[string, Readonly<Record<string, string>>, RegExp]>([
    [
      "HOST",
      { HOST: "[::1]" },
      /server\.host "\[::1\]": .*ENOTFOUND.*\nSet HOST or server\.host to an address of this machine/,
    ],
    [
      "HOST of another machine",
      { HOST: "192.0.2.1" },
      /server\.host "192\.0\.2\.1": .*EADDRNOTAVAIL.*\nSet HOST or server\.host/,
    ],
    ["METRICS_TOKEN", { METRICS_TOKEN: "a\u0007b" }, /environment METRICS_TOKEN: expected a token of printable ASCII/],
    [
      "OTEL_EXPORTER_OTLP_ENDPOINT",
      { OTEL_EXPORTER_OTLP_ENDPOINT: "user:xyzzy@x" },
      /environment OTEL_EXPORTER_OTLP_ENDPOINT .*expected an http or https URL/,
    ],
    [
      "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
      { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "ftp://x" },
      /OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: expected an http or https URL/,
    ],
  ])("names the variable of the environment that it can't use, without its secret: %s", async (_name, env, message) => {
    const server = spawnServer({ code, folder: folderOf(), env });
    expect(await server.ended).toEqual({ code: 1, signal: null });
    expect(server.lines.join("\n")).toMatch(message);
    expect(server.lines.join("\n")).not.toContain("xyzzy");
  });

  it("hears SIGTERM while it waits for another's lock, and leaves that alone", async () => {
    const folder = folderOf();
    const lock = join(folder, "users", ".lock");
    const text = '{"pid":1,"host":"elsewhere","place":"","startedAt":"","token":"t"}';
    writeFileSync(lock, text);
    const server = spawnServer({ code, folder });
    await server.logged("locked");
    server.kill("SIGTERM");
    expect(await server.ended).toEqual({ code: 0, signal: null });
    expect(server.lines.join("\n")).toContain("stopped before the start was over");
    expect(readFileSync(lock, "utf8")).toBe(text);
  });
});

describe("D4: SIGHUP", () => {
  it("ends no process", async () => {
    const server = await startServerProcess({ code, folder: folderOf() });
    for (let i = 0; i < 3; i++) server.kill("SIGHUP");
    await server.logged("reload");
    expect((await fetch(`${server.url}/livez`)).status).toBe(200);
    server.kill("SIGTERM");
    expect(await server.ended).toEqual({ code: 0, signal: null });
  });
});

describe("D9: server.shutdown_delay_seconds", () => {
  it("goes on serving for so long after SIGTERM, while /healthz tells load balancers to look elsewhere", async () => {
    const server = await startServerProcess({ code, folder: folderOf("port = 0\nshutdown_delay_seconds = 1.5") });
    const status = async (path: string): Promise<number> => (await fetch(server.url + path)).status;
    expect(await status("/healthz")).toBe(200);
    server.kill("SIGTERM");
    await server.logged("stopping");
    expect(await status("/healthz")).toBe(503);
    expect(await status("/auth/quota")).toBe(401);
    expect(await server.ended).toEqual({ code: 0, signal: null });
  });
});

describe("a wrong command line", () => {
  it.each([
    ["--chek", "--chek"],
    ["--config", "--config"],
    ["--check=1", "--check"],
    ["user", "user"],
  ])("%s is named, behind the usage and without a stack", (argument, named) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [join(code, "main.js"), argument], {
      cwd: tempDir(),
      env: { PATH: process.env.PATH },
      encoding: "utf8",
    });
    expect([status, stdout]).toEqual([2, ""]);
    expect(stderr).toContain("--check ");
    expect(stderr.trimEnd().split("\n").at(-1)).toMatch(/^error: /);
    expect(stderr.split("error: ").at(-1)).toContain(named);
    expect(stderr).not.toContain("    at ");
  });
});

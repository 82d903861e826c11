import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ConfigError, loadConfig, parseConfig } from "../../src/config/load.ts";
import { problemsOf } from "./support.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "config-"));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

function write(name: string, content: string | Uint8Array): string {
  const file = join(folder, name);
  writeFileSync(file, content);
  return file;
}

describe("where the config comes from", () => {
  it("is ./config.toml, and what it says is relative to its folder", () => {
    const file = write("config.toml", "[server]\nport = 1234");
    const loaded = loadConfig(undefined, {}, folder);
    expect(loaded).toMatchObject({ file, folder, config: { server: { port: 1234 } } });
  });

  it("may be nowhere: then the defaults hold", () => {
    expect(loadConfig(undefined, {}, folder)).toMatchObject({ file: null, folder, config: { server: { port: 8080 } } });
  });

  it("is the file that CONFIG_FILE names, or --config, which wins", () => {
    mkdirSync(join(folder, "etc"));
    write("etc/a.toml", "[server]\nport = 1");
    write("etc/b.toml", "[server]\nport = 2");
    const env = { CONFIG_FILE: "etc/a.toml" };
    expect(loadConfig(undefined, env, folder)).toMatchObject({
      folder: join(folder, "etc"),
      config: { server: { port: 1 } },
    });
    expect(loadConfig("etc/b.toml", env, folder).config.server.port).toBe(2);
  });

  it("is ./config.toml where CONFIG_FILE is empty", () => {
    expect(loadConfig(undefined, { CONFIG_FILE: "" }, folder).file).toBeNull();
  });

  it("must be there where it was named", () => {
    expect(() => loadConfig("gone.toml", {}, folder)).toThrow(ConfigError);
    expect(() => loadConfig("gone.toml", {}, folder)).toThrow(`${join(folder, "gone.toml")}: cannot be read: ENOENT`);
  });

  it("must be UTF-8; a byte order mark is no matter", () => {
    write("latin1.toml", Uint8Array.of(0x23, 0xe9, 0x0a));
    expect(() => loadConfig("latin1.toml", {}, folder)).toThrow(/latin1\.toml: cannot be read: .*utf-8/);
    write("bom.toml", "\ufeff[server]\nport = 7");
    expect(loadConfig("bom.toml", {}, folder).config.server.port).toBe(7);
  });
});

describe("a syntax error", () => {
  it("is told with file, line and column, in one line that repeats nothing of the file", () => {
    const text = '[server]\nport = 8080\njwt_secret = "hunter2-hunter2\n';
    let message = "";
    try {
      parseConfig(text, "/etc/proxy.toml");
    } catch (error) {
      message = (error as ConfigError).message;
    }
    expect(message).toMatch(/^\/etc\/proxy\.toml:3:\d+: Invalid TOML document: .+$/);
    expect(message).not.toContain("hunter2");
  });

  it.each([
    ["a = 1\na = 2", 2],
    ["[server]\n[server]", 2],
    ["x = 1__0", 1],
  ])("%j is one on line %i", (text, line) => {
    expect(problemsOf(text)[0]).toMatch(new RegExp(`^config\\.toml:${line}:`));
  });
});

describe("HOST and PORT", () => {
  it("win over the file", () => {
    const { server } = parseConfig('[server]\nhost = "::1"\nport = 1\nbody_limit_bytes = 4096', "x", {
      HOST: "0.0.0.0",
      PORT: "65535",
    });
    expect(server).toMatchObject({ host: "0.0.0.0", port: 65_535, body_limit_bytes: 4096 });
  });

  it("count as absent where they are empty", () => {
    expect(parseConfig("[server]\nport = 1", "x", { HOST: "", PORT: "" }).server).toMatchObject({
      host: "127.0.0.1",
      port: 1,
    });
  });

  it.each(["http", "-1", "65536", "80 ", "1e3", "0x50"])("refuses PORT=%j", (port) => {
    expect(problemsOf("", { PORT: port })).toEqual([
      `environment PORT: expected a port number, got text ${JSON.stringify(port)}`,
    ]);
  });

  it.each(["server = 1", "server = []", "[[server]]\nport = 1"])("does not hide that %j is no table", (text) => {
    expect(problemsOf(text, { PORT: "1" })[0]).toMatch(/^server: expected a table/);
  });
});

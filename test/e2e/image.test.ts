import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it, onTestFinished } from "vitest";
import { loadConfig } from "../../src/config/load.ts";
import { startServerProcess } from "../support/server-process.ts";
import { tempDir } from "../support/temp-dir.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** The instructions of a Dockerfile, a list for each of its stages. */
function stagesOf(text: string): readonly (readonly (readonly [word: string, rest: string])[])[] {
  const lines = text.split("\n").filter((line) => /^[A-Z]/.test(line));
  return lines
    .join("\n")
    .split(/^FROM .*$/m)
    .slice(1)
    .map((stage) =>
      stage
        .trim()
        .split("\n")
        .map((line) => [line.slice(0, line.indexOf(" ")), line.slice(line.indexOf(" ") + 1)] as const),
    );
}

/** Copies as COPY does: a folder's content into the target, files into a folder whose name ends with a slash. */
function copy(from: string, sources: readonly string[], target: string): void {
  for (const source of sources) {
    const path = join(from, source);
    if (source === "node_modules") symlinkSync(path, target);
    else cpSync(path, target.endsWith("/") ? join(target, basename(source)) : target, { recursive: true });
  }
}

describe("the image of deploy/Dockerfile", () => {
  it("is built from what is copied into it, and serves the program and its panel", async () => {
    const [build = [], image = []] = stagesOf(readFileSync(join(root, "deploy", "Dockerfile"), "utf8"));
    const ignored = readFileSync(join(root, "deploy", "Dockerfile.dockerignore"), "utf8").split("\n");
    const folder = tempDir();
    const [builder, app] = [join(folder, "build"), join(folder, "app")];
    mkdirSync(builder);
    mkdirSync(app);
    for (const [word, rest] of build) {
      if (word === "COPY") {
        const names = rest.split(" ");
        const target = names.pop() ?? "";
        for (const name of names) expect(ignored).toContain(`!${name}`);
        copy(root, names, target === "./" ? `${builder}/` : join(builder, target));
      } else if (word === "RUN" && rest === "npm ci") {
        symlinkSync(join(root, "node_modules"), join(builder, "node_modules"));
      } else if (word === "RUN") {
        expect(rest).toBe("npm run build && npm prune --omit=dev");
        const { status, stdout, stderr } = spawnSync("npm", ["run", "build"], { cwd: builder, encoding: "utf8" });
        expect([status, status === 0 ? "" : stdout + stderr]).toEqual([0, ""]);
      }
    }
    for (const [word, rest] of image) {
      if (word !== "COPY") continue;
      const [first = "", target = ""] = rest.replace("--from=build /app/", "").split(" ");
      const isBuilt = rest.startsWith("--from=build");
      if (!isBuilt) expect(ignored).toContain(`!${first}`);
      copy(isBuilt ? builder : root, [first], target === "./" ? `${app}/` : join(app, target));
    }
    const { config } = loadConfig(join(app, "config", "config.toml"), {}, app);
    expect(config).toMatchObject({ server: { host: "0.0.0.0", port: 8080 }, storage: { users_dir: "/data/users" } });

    writeFileSync(join(folder, "config.toml"), '[server]\nhost = "127.0.0.1"\nport = 0\n');
    const server = await startServerProcess({ code: join(app, "dist"), folder });
    onTestFinished(async () => {
      server.kill("SIGTERM");
      await server.ended;
    });
    const panel = await fetch(`${server.url}/panel/`);
    expect([panel.status, await panel.text()]).toEqual([200, expect.stringContaining('<script type="module"')]);
    const spec = await fetch(`${server.url}/openapi.json`);
    expect(spec.status).toBe(200);
  });
});

it("Node runs with the same flags by npm start, in the image and in the unit of README", () => {
  const textOf = (...path: readonly string[]): string => readFileSync(join(root, ...path), "utf8");
  const flagsIn = (line = ""): readonly string[] => line.match(/--[\w-]+=\d+/g) ?? [];
  const { scripts } = JSON.parse(textOf("package.json")) as { readonly scripts: { readonly start: string } };
  const flags = flagsIn(scripts.start);
  expect(flags).not.toEqual([]);
  expect(flagsIn(/^CMD .*$/m.exec(textOf("deploy", "Dockerfile"))?.[0])).toEqual(flags);
  expect(flagsIn(/^ExecStart=.*$/m.exec(textOf("README.md"))?.[0])).toEqual(flags);
});

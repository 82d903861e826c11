import {
  appendFileSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { watchConfig } from "../../src/config/watch.ts";
import { eventually } from "../support/eventually.ts";
import { tempDir } from "../support/temp-dir.ts";

const former = "[server]\nport = 1\n\n[chat]\nstream_default = false\n";
const next = "[server]\nport = 2\n\n[chat]\nstream_default = true\n";

describe("the watch of a config file", () => {
  const closers: (() => void)[] = [];
  afterEach(() => {
    for (const close of closers.splice(0)) close();
  });

  /** Watches a file, and collects its text at each change; null stands for no file. */
  async function watch(path: string): Promise<(string | null)[]> {
    const seen: (string | null)[] = [];
    const watcher = watchConfig({
      path,
      everyMs: 5,
      quietMs: 20,
      unfinishedMs: 150,
      onChange() {
        try {
          seen.push(readFileSync(path, "utf8"));
        } catch {
          seen.push(null);
        }
        return Promise.resolve();
      },
    });
    closers.push(() => {
      watcher.close();
    });
    // Its first look is at the file as it was.
    await new Promise((resolve) => setTimeout(resolve, 30));
    return seen;
  }

  function configIn(folder: string): string {
    const path = join(folder, "config.toml");
    writeFileSync(path, former);
    return path;
  }

  it.each<[string, (path: string) => void]>([
    [
      "writes in place",
      (path) => {
        writeFileSync(path, next);
      },
    ],
    [
      "renames a new file over it",
      (path) => {
        writeFileSync(`${path}.tmp`, next);
        renameSync(`${path}.tmp`, path);
      },
    ],
    [
      "moves the old file away and writes another (vim)",
      (path) => {
        renameSync(path, `${path}~`);
        writeFileSync(path, next);
        unlinkSync(`${path}~`);
      },
    ],
    [
      "deletes and creates",
      (path) => {
        unlinkSync(path);
        writeFileSync(path, next);
      },
    ],
  ])("sees the change once when an editor %s", async (_habit, save) => {
    const path = configIn(tempDir());
    const seen = await watch(path);
    save(path);
    await eventually(() => {
      expect(seen).toEqual([next]);
    });
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect(seen).toEqual([next]);
  });

  it("waits for the rest of a file that is written piece by piece", async () => {
    const path = configIn(tempDir());
    const seen = await watch(path);
    // A whole table of the new text is missing, and what is there is valid.
    for (const [index, piece] of [former.slice(0, 18), former.slice(18, 30), former.slice(30)].entries()) {
      if (index === 0) writeFileSync(path, piece);
      else appendFileSync(path, piece);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    writeFileSync(path, "");
    await new Promise((resolve) => setTimeout(resolve, 50));
    writeFileSync(path, next);
    await eventually(() => {
      expect(seen.at(-1)).toBe(next);
    });
    expect(seen.filter((text) => text !== next && text !== former)).toEqual([]);
  });

  it("reports a file that stays broken, cut short or away, and then its return", async () => {
    const path = configIn(tempDir());
    const seen = await watch(path);
    writeFileSync(path, "[server\n");
    await eventually(() => {
      expect(seen).toEqual(["[server\n"]);
    });
    unlinkSync(path);
    await eventually(() => {
      expect(seen).toEqual(["[server\n", null]);
    });
    writeFileSync(path, former);
    await eventually(() => {
      expect(seen.at(-1)).toBe(former);
    });
    writeFileSync(path, former.slice(0, 18));
    await eventually(() => {
      expect(seen.at(-1)).toBe(former.slice(0, 18));
    });
  });

  it("follows a link above the file that is swapped, as Kubernetes does", async () => {
    const folder = tempDir();
    const publish = (name: string, text: string): void => {
      mkdirSync(join(folder, name));
      writeFileSync(join(folder, name, "config.toml"), text);
      symlinkSync(name, join(folder, "..data_tmp"));
      renameSync(join(folder, "..data_tmp"), join(folder, "..data"));
    };
    publish("..2026_1", former);
    symlinkSync(join("..data", "config.toml"), join(folder, "config.toml"));
    const seen = await watch(join(folder, "config.toml"));
    publish("..2026_2", next);
    rmSync(join(folder, "..2026_1"), { recursive: true });
    await eventually(() => {
      expect(seen).toEqual([next]);
    });
  });

  it("reports nothing any more once it is closed", async () => {
    const path = configIn(tempDir());
    const seen = await watch(path);
    for (const close of closers.splice(0)) close();
    writeFileSync(path, next);
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect(seen).toEqual([]);
  });
});

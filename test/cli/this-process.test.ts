import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { compiledServer } from "../support/server-process.ts";
import { tempDir } from "../support/temp-dir.ts";

/** Runs a command in a shell, which says where its output goes. */
function run(command: string) {
  const main = join(compiledServer(), "cli", "main.js");
  const { status, stdout, stderr } = spawnSync("sh", ["-c", command, process.execPath, main], {
    cwd: tempDir(),
    encoding: "utf8",
  });
  return { status, stdout, stderr };
}

describe("the output of a command", () => {
  it.skipIf(!existsSync("/dev/full"))("that can't be written ends it with one line and exit code 1", () => {
    const { status, stderr } = run('"$0" "$1" user --help > /dev/full');
    expect(stderr).toBe(
      "error: the output cannot be written, so the command has stopped: ENOSPC: no space left on device, write\n",
    );
    expect(status).toBe(1);
  });

  it("that nobody reads any more ends it quietly", () => {
    expect(run('"$0" "$1" user --help | head -1')).toEqual({
      status: 0,
      stdout: "Usage: npm run user -- COMMAND [OPTIONS]\n",
      stderr: "",
    });
  });

  it("loses no exit code where its errors can't be written", () => {
    expect(run('{ "$0" "$1" user nothing; echo "$?"; } 2> /dev/full').stdout).toBe("2\n");
  });
});

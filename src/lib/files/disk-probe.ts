import { constants } from "node:fs";
import { open, readdir, unlink } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../clock.ts";
import { fileErrorCode } from "./file-ops.ts";

/** Tells whether a folder can be written to. */
export interface DiskProbe {
  /** Rejects with Node's error where it can't. Anybody may ask: the disk is touched now and then only. */
  check(): Promise<void>;
}

const name = ".probe";
/** What earlier versions left behind, a file for each call on a full disk. */
const former = /^\.probe-[0-9a-f-]{36}$/;
/** How long an outcome holds, in ms. */
const freshMs = 5_000;

/** Removes what a killed process left of its probes. Only one process may probe a folder. */
export async function openDiskProbe(folder: string, clock: Clock): Promise<DiskProbe> {
  const path = join(folder, name);
  const leftovers = (await readdir(folder)).filter((file) => file === name || former.test(file));
  for (const file of leftovers) await removeFile(join(folder, file));

  let last: Promise<void> | undefined;
  let freshUntil = -Infinity;
  return {
    check() {
      const now = clock.monotonic();
      if (last === undefined || now >= freshUntil) {
        // While one is under way, it is everybody's, however long it takes.
        freshUntil = Infinity;
        last = probe(path).finally(() => {
          freshUntil = clock.monotonic() + freshMs;
        });
        // Whoever asked hears of a failure; where nobody waits any more it is no error.
        last.catch(() => undefined);
      }
      return last;
    },
  };
}

/** Writes a byte and removes it again. A full disk lets files be made and only then refuses. */
async function probe(path: string): Promise<void> {
  const { O_WRONLY, O_CREAT, O_TRUNC, O_NOFOLLOW } = constants;
  const file = await open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0o600);
  try {
    await file.writeFile("x");
  } finally {
    await file.close();
    await removeFile(path);
  }
}

async function removeFile(path: string): Promise<void> {
  await unlink(path).catch((error: unknown) => {
    if (fileErrorCode(error) !== "ENOENT") throw error;
  });
}

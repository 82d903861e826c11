import { constants } from "node:fs";
import { open, readdir, unlink } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../clock.ts";
import { fileErrorCode } from "./file-ops.ts";

/** Checks whether a folder can be written to. */
export interface DiskProbe {
  /** Rejects with Node's error if it can't. Can be called by anyone: the disk is accessed only now and then. */
  check(): Promise<void>;
}

const name = ".probe";
/** Leftovers of earlier versions, one file for each call on a full disk. */
const former = /^\.probe-[0-9a-f-]{36}$/;
/** How long a result is cached, in ms. */
const freshMs = 5_000;

/** Removes the leftover probes of a killed process. Only one process may probe a folder. */
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
        // While one is running, all callers share it, however long it takes.
        freshUntil = Infinity;
        last = probe(path).finally(() => {
          freshUntil = clock.monotonic() + freshMs;
        });
        // Callers get the failure; without callers it is no unhandled rejection.
        last.catch(() => undefined);
      }
      return last;
    },
  };
}

/** Writes a byte and removes it again. A full disk allows creating files and only then refuses. */
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

import { constants } from "node:fs";
import { type FileHandle, open, rename, rm, unlink } from "node:fs/promises";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { plainFile, writeGzip } from "../../lib/files/text-file.ts";
import { entriesOf, isBehaviourFolder, parseFileName } from "./behaviour-files.ts";

/** Compresses logs of past days: one file at a time, with pauses, so that requests have the processor. */
export interface LogCompressor {
  /**
   * Compresses the files of days before `firstDay` in the folders under `usersDir`. Each appears as NAME.jsonl.gz once
   * it is complete and on disk, and only then is NAME.jsonl removed; what a crash has left is removed. Returns how many
   * files were compressed. Rejects with Node's errors; the file at which it failed is as it was.
   *
   * @param alone runs its argument while nobody writes to the logs
   */
  compress(usersDir: string, firstDay: string, alone: Alone): Promise<number>;
  /** Ends what is running soon, and starts nothing more. */
  close(): void;
}

type Alone = <T>(action: () => Promise<T>) => Promise<T>;

/** So many ms of pause for each ms of work. */
const pauseShare = 3;

export function createLogCompressor(): LogCompressor {
  /** Of all callers, one after the other. */
  let turn: Promise<unknown> = Promise.resolve();
  let closed = false;

  async function goesOn(tookMs: number): Promise<boolean> {
    await sleep(pauseShare * tookMs);
    return !closed;
  }

  async function compressAll(...[usersDir, firstDay, alone]: Parameters<LogCompressor["compress"]>): Promise<number> {
    let compressed = 0;
    for (const folder of await entriesOf(usersDir)) {
      if (!folder.isDirectory() || !isBehaviourFolder(folder.name)) continue;
      for (const entry of await entriesOf(path.join(usersDir, folder.name))) {
        const file = entry.isFile() ? parseFileName(entry.name) : null;
        // ISO dates sort as strings.
        if (file === null || file.day >= firstDay) continue;
        if (closed) return compressed;
        const name = path.join(usersDir, folder.name, entry.name);
        if (file.state === "unfinished") await rm(name, { force: true });
        else if (file.state === "plain" && (await compressFile(name, goesOn, alone))) compressed += 1;
      }
    }
    return compressed;
  }

  return {
    compress(...order) {
      const done = turn.then(() => compressAll(...order));
      turn = done.catch(() => undefined);
      return done;
    },
    close() {
      closed = true;
    },
  };
}

/** Returns whether it is compressed: not if it has grown meanwhile, or is gone. */
async function compressFile(
  name: string,
  goesOn: (tookMs: number) => Promise<boolean>,
  alone: Alone,
): Promise<boolean> {
  const draft = `${name}.gz.tmp`;
  const { O_RDONLY, O_WRONLY, O_CREAT, O_TRUNC, O_NOFOLLOW } = constants;
  const source = await open(name, O_RDONLY | O_NOFOLLOW);
  let isDone = false;
  let target: FileHandle | undefined;
  try {
    const before = await source.stat();
    target = await open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, before.mode & 0o777);
    const text = await plainFile(source);
    if (await writeGzip(text, target, goesOn)) {
      await target.utimes(before.atime, before.mtime);
      isDone = await alone(async () => {
        const { size, nlink } = await source.stat();
        if (size !== text.size || nlink === 0) return false;
        await rename(draft, `${name}.gz`);
        await syncFolder(path.dirname(name));
        await unlink(name);
        return true;
      });
    }
  } finally {
    await source.close();
    await target?.close();
    if (!isDone) await unlink(draft).catch(() => undefined);
  }
  return isDone;
}

/** Otherwise a power loss might undo the new name, and keep that the old one is removed. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

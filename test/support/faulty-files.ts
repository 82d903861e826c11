import { diskOps, type FileOps } from "../../src/lib/files/file-ops.ts";

/** Kinds of operations that can be made to fail. */
export type FaultyKind = "open" | "write" | "sync" | "rename" | "truncate" | "unlink";

/** What happens to an operation: it fails with a code, or (a write only) does half of its work. */
export type Fault = "EIO" | "ENOSPC" | "short";

export interface FaultyFiles extends FileOps {
  /** How many operations of a kind have been asked for. */
  count(kind: FaultyKind): number;
  /** From the `nth` operation of the kind from now on (1 is the next), `times` of them get the fault. */
  fail(kind: FaultyKind, fault: Fault, nth?: number, times?: number): void;
  /** Called before each write that the caller waits for: a slow disk moves the clock. */
  onWriteSync: () => void;
  /** Every later write that nobody waits for begins once this is over. */
  hold: Promise<unknown> | undefined;
}

/** The real disk, with faults where the test wants them. */
export function createFaultyFiles(): FaultyFiles {
  const counts = new Map<FaultyKind, number>();
  const faults: { kind: FaultyKind; fault: Fault; from: number; to: number }[] = [];

  function next(kind: FaultyKind): Fault | undefined {
    const n = (counts.get(kind) ?? 0) + 1;
    counts.set(kind, n);
    const hit = faults.find((fault) => fault.kind === kind && n >= fault.from && n < fault.to);
    if (hit !== undefined && hit.fault !== "short") throw Object.assign(new Error(hit.fault), { code: hit.fault });
    return hit?.fault;
  }

  const files: FaultyFiles = {
    ...diskOps,
    onWriteSync: () => undefined,
    hold: undefined,
    openSync(path, flags, mode) {
      next("open");
      return diskOps.openSync(path, flags, mode);
    },
    writeSync(fd, bytes, offset, length) {
      files.onWriteSync();
      return diskOps.writeSync(fd, bytes, offset, next("write") === "short" ? length >> 1 : length);
    },
    ftruncateSync(fd, length) {
      next("truncate");
      diskOps.ftruncateSync(fd, length);
    },
    fdatasyncSync(fd) {
      next("sync");
      diskOps.fdatasyncSync(fd);
    },
    unlinkSync(path) {
      next("unlink");
      diskOps.unlinkSync(path);
    },
    async open(path, flags, mode) {
      next("open");
      return diskOps.open(path, flags, mode);
    },
    async write(fd, bytes, offset, length) {
      await files.hold;
      return diskOps.write(fd, bytes, offset, next("write") === "short" ? length >> 1 : length);
    },
    async ftruncate(fd, length) {
      next("truncate");
      await diskOps.ftruncate(fd, length);
    },
    async fsync(fd) {
      next("sync");
      await diskOps.fsync(fd);
    },
    async fdatasync(fd) {
      next("sync");
      await diskOps.fdatasync(fd);
    },
    async rename(from, to) {
      next("rename");
      await diskOps.rename(from, to);
    },
    async unlink(path) {
      next("unlink");
      await diskOps.unlink(path);
    },
    count: (kind) => counts.get(kind) ?? 0,
    fail(kind, fault, nth = 1, times = 1) {
      const from = (counts.get(kind) ?? 0) + nth;
      faults.push({ kind, fault, from, to: from + times });
    },
  };
  return files;
}

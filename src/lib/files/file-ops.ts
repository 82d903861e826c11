import * as fs from "node:fs";

/**
 * The file operations on which durability depends, and no others, so that a test can make the n-th of them fail. `fd`
 * is a file descriptor; every operation fails with Node's own errors (`code: "ENOSPC"`, ...).
 */
export interface FileOps {
  openSync(path: string, flags: number, mode: number): number;
  /**
   * Writes at the file's position (its end with O_APPEND); may write less than requested. Returns the bytes written.
   */
  writeSync(fd: number, bytes: Uint8Array, offset: number, length: number): number;
  ftruncateSync(fd: number, length: number): void;
  fdatasyncSync(fd: number): void;
  closeSync(fd: number): void;
  unlinkSync(path: string): void;

  open(path: string, flags: number, mode: number): Promise<number>;
  /** As writeSync. */
  write(fd: number, bytes: Uint8Array, offset: number, length: number): Promise<number>;
  ftruncate(fd: number, length: number): Promise<void>;
  fsync(fd: number): Promise<void>;
  fdatasync(fd: number): Promise<void>;
  close(fd: number): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
}

/** The real disk. */
export const diskOps: FileOps = {
  openSync: (path, flags, mode) => fs.openSync(path, flags, mode),
  writeSync: (fd, bytes, offset, length) => fs.writeSync(fd, bytes, offset, length),
  ftruncateSync: (fd, length) => {
    fs.ftruncateSync(fd, length);
  },
  fdatasyncSync: (fd) => {
    fs.fdatasyncSync(fd);
  },
  closeSync: (fd) => {
    fs.closeSync(fd);
  },
  unlinkSync: (path) => {
    fs.unlinkSync(path);
  },
  open: (path, flags, mode) =>
    later((done) => {
      fs.open(path, flags, mode, done);
    }),
  write: (fd, bytes, offset, length) =>
    later((done) => {
      fs.write(fd, bytes, offset, length, null, done);
    }),
  ftruncate: (fd, length) =>
    later((done) => {
      fs.ftruncate(fd, length, done);
    }),
  fsync: (fd) =>
    later((done) => {
      fs.fsync(fd, done);
    }),
  fdatasync: (fd) =>
    later((done) => {
      fs.fdatasync(fd, done);
    }),
  close: (fd) =>
    later((done) => {
      fs.close(fd, done);
    }),
  rename: (from, to) => fs.promises.rename(from, to),
  unlink: (path) => fs.promises.unlink(path),
};

/** The error code of a failed file operation, such as "ENOENT"; undefined for any other error. */
export function fileErrorCode(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}

/** Converts a callback operation to a promise. */
function later<T>(start: (done: (error: Error | null, value?: T) => void) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    start((error, value) => {
      if (error) reject(error);
      else resolve(value as T);
    });
  });
}

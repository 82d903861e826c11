import { createHash } from "node:crypto";
import { readdir, readFile, stat } from "node:fs/promises";
import { extname, join, relative, sep } from "node:path";

/** A file of the built panel, ready to be sent. */
export interface PanelFile {
  readonly type: string;
  readonly etag: string;
  /** Its name contains a hash of its content: a browser may keep it for ever. */
  readonly isImmutable: boolean;
  readonly body: Buffer;
  /** The same, compressed when the panel was built. */
  readonly br: Buffer | undefined;
  readonly gzip: Buffer | undefined;
}

/** The files of the built panel. They are kept in memory: no path of a client ever reaches the disk. */
export interface PanelFiles {
  /** @param path below the folder, such as `assets/index-4f2a.js` */
  get(path: string): Promise<PanelFile | undefined>;
}

const types: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json; charset=utf-8",
  ".webmanifest": "application/manifest+json",
  ".map": "application/json; charset=utf-8",
  ".txt": "text/plain; charset=utf-8",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".jpg": "image/jpeg",
  ".webp": "image/webp",
  ".ico": "image/x-icon",
  ".woff2": "font/woff2",
};

/** Whether a path names a file rather than a page of the panel, which may contain a user's name with dots. */
export function isFilePath(path: string): boolean {
  return /^assets(\/|$)/.test(path) || extname(path).toLowerCase() in types;
}

/** More than any build of the panel has. */
const maxFiles = 500;
const maxBytes = 16 << 20;
/** How long the folder is taken to be as it was, ms. */
const freshMs = 1000;

/**
 * @param folder may be missing, and may come later: a new build is read without a restart
 * @param monotonic ms
 */
export function createPanelFiles(folder: string, monotonic: () => number): PanelFiles {
  let files: ReadonlyMap<string, PanelFile> = new Map();
  let builtAt: number | undefined;
  let look: Promise<void> | undefined;
  let lookedAt = -Infinity;

  /** @param isMissing a file that the page asked for: the build may still have been running when we looked */
  async function renew(isMissing: boolean): Promise<void> {
    const changedAt = (await stat(join(folder, "index.html")).catch(() => undefined))?.mtimeMs;
    if (changedAt === builtAt && !isMissing) return;
    files = changedAt === undefined ? new Map() : await readAll(folder);
    builtAt = changedAt;
  }

  return {
    async get(path) {
      const file = files.get(path);
      if (file?.isImmutable === true) return file;
      if (monotonic() - lookedAt >= freshMs) {
        lookedAt = monotonic();
        look = renew(file === undefined).catch(() => undefined);
      }
      await look;
      return files.get(path);
    },
  };
}

async function readAll(folder: string): Promise<ReadonlyMap<string, PanelFile>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const bodies = new Map<string, Buffer>();
  let bytes = 0;
  // Never through a symbolic link.
  for (const entry of entries.filter((one) => one.isFile()).slice(0, maxFiles)) {
    const path = join(entry.parentPath, entry.name);
    const body = await readFile(path);
    bytes += body.length;
    if (bytes > maxBytes) break;
    bodies.set(relative(folder, path).split(sep).join("/"), body);
  }
  return new Map(
    [...bodies]
      .filter(([path]) => !/\.(br|gz)$/.test(path))
      .map(([path, body]): [string, PanelFile] => [
        path,
        {
          type: types[extname(path).toLowerCase()] ?? "application/octet-stream",
          etag: `"${createHash("sha256").update(body).digest("base64url").slice(0, 22)}"`,
          isImmutable: path.startsWith("assets/"),
          body,
          br: bodies.get(`${path}.br`),
          gzip: bodies.get(`${path}.gz`),
        },
      ]),
  );
}

import { mkdir, readdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { readPlainFile, syncFolder, writeFileAtomic } from "../lib/files/atomic-file.ts";
import { diskOps, fileErrorCode, type FileOps } from "../lib/files/file-ops.ts";
import { isUserName } from "../identity/user-name.ts";
import type { DocumentRecord } from "./logged-records.ts";

/** A document of Redis as a file of the users folder, and back. */
export interface DocumentFolder {
  /** Writes or removes the file; on disk when it resolves. Rejects with Node's error, RangeError for an impossible name. */
  write(document: DocumentRecord): Promise<void>;
  /**
   * The text of a document; null if there is none, undefined if it is not in force: see `all`. Rejects with Node's error,
   * RangeError for an impossible name.
   */
  read(document: DocumentName): Promise<string | null | undefined>;
  /**
   * What the folder has, but for user files with a password in plain text: these are not in force, since the proxy would
   * have hashed it otherwise, and nobody else is to get it. Throws Node's errors, and those of files that are no plain
   * UTF-8 text.
   */
  all(): AsyncIterable<DocumentRecord & { readonly text: string }>;
  /** The users whose files have a password in plain text. Throws as `all`. */
  plainUsers(): Promise<readonly string[]>;
}

type DocumentName = Pick<DocumentRecord, "kind" | "name">;

interface Place {
  readonly folder: string;
  readonly ending: string;
}

/** Where the documents of each kind are: files NAME + ending in a folder below the users folder. */
const places = {
  users: { folder: "", ending: ".toml" },
  keys: { folder: "", ending: ".keys.toml" },
  sessions: { folder: "", ending: ".sessions.toml" },
  groups: { folder: "groups", ending: ".toml" },
  codes: { folder: "codes", ending: ".json" },
  logins: { folder: "logins", ending: ".json" },
  linked: { folder: "logins/linked", ending: ".json" },
} as const satisfies Readonly<Record<string, Place>>;
/** Archived documents have the path of their file for a name. */
const archiveFolder = ".archive";
/** Also in files that are no valid TOML. */
const plainPassword = /^[ \t]*(?:password|"password"|'password')[ \t]*=/m;
const archivedName = /^(?:[\w-][\w.-]*\/)*[\w-][\w.-]*$/;

/** Documents in files of a users folder, as the backend `files` has them. */
export function createDocumentFolder(usersDir: string, ops: FileOps = diskOps): DocumentFolder {
  function pathOf({ kind, name }: DocumentName): string {
    if (kind === "archive" && archivedName.test(name)) return join(usersDir, archiveFolder, name);
    const place: Place | undefined = Object.hasOwn(places, kind) ? places[kind as keyof typeof places] : undefined;
    if (place === undefined || !isUserName(name)) throw new RangeError(`no document can be ${kind}/${name}`);
    return join(usersDir, place.folder, name + place.ending);
  }

  async function* filesBelow(folder: string): AsyncIterable<string> {
    for (const entry of await entriesOf(folder)) {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) yield* filesBelow(path);
      else if (entry.isFile()) yield path;
    }
  }

  async function* filesOf({ folder, ending }: Place): AsyncIterable<{ readonly name: string; readonly text: string }> {
    for (const { name: file } of await entriesOf(join(usersDir, folder))) {
      const name = file.slice(0, -ending.length);
      // NAME.keys.toml ends with .toml as well: a name has no dot.
      if (file.endsWith(ending) && isUserName(name))
        yield { name, text: await readPlainFile(join(usersDir, folder, file)) };
    }
  }

  return {
    async write(document) {
      const path = pathOf(document);
      if ((await textAt(path)) === document.text) return;
      if (document.text === null) {
        await ops.unlink(path);
        await syncFolder(dirname(path), ops);
        return;
      }
      await mkdir(dirname(path), { recursive: true, mode: 0o700 });
      await writeFileAtomic(path, document.text, { ops });
    },
    async read(document) {
      const text = await textAt(pathOf(document));
      return text === null || isInForce(document.kind, text) ? text : undefined;
    },
    async *all() {
      for (const [kind, place] of Object.entries(places)) {
        for await (const { name, text } of filesOf(place)) if (isInForce(kind, text)) yield { kind, name, text };
      }
      const archive = join(usersDir, archiveFolder);
      for await (const path of filesBelow(archive)) {
        const name = path.slice(archive.length + 1);
        if (archivedName.test(name)) yield { kind: "archive", name, text: await readPlainFile(path) };
      }
    },
    async plainUsers() {
      const names: string[] = [];
      for await (const { name, text } of filesOf(places.users)) if (!isInForce("users", text)) names.push(name);
      return names;
    },
  };
}

function isInForce(kind: string, text: string): boolean {
  return kind !== "users" || !plainPassword.test(text);
}

/** null if there is no file. */
async function textAt(path: string): Promise<string | null> {
  try {
    return await readPlainFile(path);
  } catch (error) {
    if (fileErrorCode(error) === "ENOENT") return null;
    throw error;
  }
}

async function entriesOf(folder: string) {
  try {
    return await readdir(folder, { withFileTypes: true });
  } catch (error) {
    if (fileErrorCode(error) === "ENOENT") return [];
    throw error;
  }
}

import { randomBytes } from "node:crypto";
import { mkdir, readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { readPlainFile, writeFileAtomic } from "../../lib/files/atomic-file.ts";
import { fileErrorCode } from "../../lib/files/file-ops.ts";
import { followFile, type FollowOptions } from "../../lib/files/followed-file.ts";
import type { Log } from "../../lib/log.ts";

/** The secrets that sign access tokens. */
export interface TokenKeys {
  /** The first one signs. */
  readonly signing: { readonly kid: string; readonly secret: string };
  /** All of them verify. A Map: in an object, `kid: "__proto__"` would find something. */
  readonly byKid: ReadonlyMap<string, string>;
}

/** The current secrets: they are replaced when their file changes. */
export interface LiveTokenKeys extends TokenKeys {
  /** Checks the file for changes now. */
  check(): void;
  close(): void;
}

export interface TokenKeysOptions {
  /** JWT_SECRETS or JWT_SECRETS_FILE, or neither. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly usersDir: string;
  readonly log: Log;
}

const minBytes = 32;
/** Words from documentation and tutorials. No random secret of 32 bytes contains one. */
const wellKnown =
  /changeme|changethis|replaceme|yoursecret|yourjwt|mysecret|supersecret|topsecret|secretkey|jwtsecret|password|example|placeholder|deepseek|1234567890|abcdefghij|qwerty/;

/**
 * Finds the signing secrets: JWT_SECRETS, else the file named by JWT_SECRETS_FILE, else a random one that is created
 * once and kept in users/.keys/jwt.
 *
 * @throws Error that says what is wrong and where, naming the kid and never the secret
 */
export async function loadTokenKeys(options: TokenKeysOptions): Promise<TokenKeys> {
  const { JWT_SECRETS: inline = "", JWT_SECRETS_FILE: file = "" } = options.env;
  if (inline !== "" && file !== "") throw new Error("JWT_SECRETS and JWT_SECRETS_FILE are both set: keep one");
  if (inline !== "") return parseTokenKeys(inline, "JWT_SECRETS");
  if (file !== "") {
    const text = await readFile(file, "utf8").catch((error: unknown) => {
      throw new Error(`JWT_SECRETS_FILE: ${file} cannot be read`, { cause: error });
    });
    return parseTokenKeys(text, `JWT_SECRETS_FILE ${file}`);
  }
  return ownKeys(ownFile(options.usersDir), options.log);
}

/** As loadTokenKeys, and watches the file that contains them, if any. */
export async function openTokenKeys(
  options: TokenKeysOptions & Pick<FollowOptions, "onOutcome">,
): Promise<LiveTokenKeys> {
  const { JWT_SECRETS: inline = "", JWT_SECRETS_FILE: named = "" } = options.env;
  let keys = await loadTokenKeys(options);
  const [path, source] = named === "" ? [ownFile(options.usersDir), ""] : [named, "JWT_SECRETS_FILE "];
  const onText = (text: string): void => {
    keys = parseTokenKeys(text, source + path);
  };
  const file = inline === "" ? followFile({ ...options, path, onText }) : null;
  return {
    get signing() {
      return keys.signing;
    },
    get byKid() {
      return keys.byKid;
    },
    check: () => file?.check(),
    close: () => file?.close(),
  };
}

/**
 * The random secret that a start has made; undefined if none has yet.
 *
 * @throws as loadTokenKeys
 */
export async function readOwnTokenKeys(usersDir: string): Promise<TokenKeys | undefined> {
  const path = ownFile(usersDir);
  try {
    return parseTokenKeys(await readPlainFile(path), path);
  } catch (error) {
    if (fileErrorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

function ownFile(usersDir: string): string {
  return join(usersDir, ".keys", "jwt");
}

/**
 * Parses `kid:secret[,kid:secret]`; line ends separate like commas.
 *
 * @param source how to name the text in an error
 */
export function parseTokenKeys(text: string, source: string): TokenKeys {
  const byKid = new Map<string, string>();
  for (const pair of text.split(/[,\r\n]+/).map((part) => part.trim())) {
    if (pair === "") continue;
    const [, kid, secret] = /^([A-Za-z0-9._-]{1,64}):(.*)$/.exec(pair) ?? [];
    // The text itself is not shown: without a colon, all of it is secret.
    if (kid === undefined || secret === undefined) {
      throw new Error(`${source}: entry ${byKid.size + 1} is not kid:secret (kid: letters, digits, ".", "_" and "-")`);
    }
    if (byKid.has(kid)) throw new Error(`${source}: kid "${kid}" is there twice`);
    const weakness = weaknessOf(secret);
    if (weakness !== undefined) {
      throw new Error(`${source}: the secret of kid "${kid}" ${weakness}; make one with: openssl rand -base64 48`);
    }
    byKid.set(kid, secret);
  }
  const [first] = byKid;
  if (first === undefined) throw new Error(`${source} holds no kid:secret`);
  return { signing: { kid: first[0], secret: first[1] }, byKid };
}

function weaknessOf(secret: string): string | undefined {
  const bytes = Buffer.byteLength(secret);
  if (bytes < minBytes) return `has ${bytes} bytes and needs at least ${minBytes}`;
  if (wellKnown.test(secret.toLowerCase().replace(/[^a-z0-9]/g, ""))) return "holds a well-known word or sequence";
  if (new Set(secret).size < 8) return "has fewer than 8 different characters";
  if (repeats(secret)) return "repeats itself";
  return undefined;
}

/** Whether the text repeats a shorter text, the last repetition perhaps truncated. */
function repeats(text: string): boolean {
  for (let period = 1; period <= text.length / 2; period++) {
    if (text.slice(period) === text.slice(0, -period)) return true;
  }
  return false;
}

async function ownKeys(path: string, log: Log): Promise<TokenKeys> {
  try {
    const keys = parseTokenKeys(await readPlainFile(path), path);
    const { mode } = await stat(path);
    if ((mode & 0o077) !== 0) log.warn({ path }, "others may read the token secret: chmod 600 it and change it");
    return keys;
  } catch (error) {
    if (fileErrorCode(error) !== "ENOENT") throw error;
  }
  const text = `auto-${randomBytes(4).toString("hex")}:${randomBytes(48).toString("base64")}\n`;
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  await writeFileAtomic(path, text, { mode: 0o600 });
  log.warn({ path }, "neither JWT_SECRETS nor JWT_SECRETS_FILE is set: made a random token secret");
  return parseTokenKeys(text, path);
}

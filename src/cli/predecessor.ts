import { readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { z } from "zod";
import type { Metadata } from "../identity/user-fields.ts";
import { parseToml } from "../identity/files/toml-edit.ts";
import { fileErrorCode } from "../lib/files/file-ops.ts";
import { readPlainFile } from "../lib/files/atomic-file.ts";

/** A user of the predecessor. */
export interface OldUser {
  readonly username: string;
  readonly password: string;
  readonly quota_tier: string;
  readonly is_active: boolean;
  /** All other fields that the predecessor kept. */
  readonly metadata: Metadata;
}

/** What the predecessor counted for a user. */
export interface OldQuota {
  readonly username: string;
  readonly tier?: string | undefined;
  readonly monthly_limit: number;
  readonly used_count: number;
  /** As a string, with or without an offset; absent if the file has none. */
  readonly reset_at?: string | null | undefined;
}

/** A file that cannot be used. The reason contains no values: one may be a password. */
interface BadFile {
  readonly file: string;
  readonly reason: string;
}

/** All data of the predecessor, and the files that are unusable. */
export interface Predecessor {
  readonly users: readonly OldUser[];
  readonly quotas: ReadonlyMap<string, OldQuota>;
  /** Names of users with an unusable quota file: they must not start at zero. */
  readonly badQuotas: ReadonlySet<string>;
  readonly bad: readonly BadFile[];
}

const userSchema = z.looseObject({
  username: z.string().min(1),
  password: z.string().min(1),
  quota_tier: z.string().min(1),
  is_active: z.boolean().default(true),
});

const quotaSchema = z.object({
  username: z.string().min(1),
  tier: z.string().optional(),
  monthly_limit: z.int().min(0),
  used_count: z.int().min(0),
  reset_at: z.string().nullish(),
});

/** Fields that are not copied to a user's metadata, which administrators can read. */
const secretField = /pass|secret|token|hash|key/i;

/**
 * Reads `data/users/*.toml` and `data/quotas/*.json` below `folder`, or below the data folder itself. Throws if there
 * is no such folder.
 */
export async function readPredecessor(folder: string): Promise<Predecessor> {
  const data = (await filesOf(join(folder, "data", "users"), ".toml")) === undefined ? folder : join(folder, "data");
  const userFiles = await filesOf(join(data, "users"), ".toml");
  if (userFiles === undefined) throw new Error(`${folder} holds neither data/users nor users`);
  const bad: BadFile[] = [];

  const users = new Map<string, OldUser>();
  for (const file of userFiles) {
    const user = await readAs(file, bad, (text) => toUser(userSchema.parse(parseToml(text))));
    if (user === undefined) continue;
    if (users.has(user.username)) bad.push({ file, reason: "another file has the same username" });
    else users.set(user.username, user);
  }
  const quotas = new Map<string, OldQuota>();
  const badQuotas = new Set<string>();
  for (const file of (await filesOf(join(data, "quotas"), ".json")) ?? []) {
    const quota = await readAs(file, bad, (text) => quotaSchema.parse(JSON.parse(text)));
    const named = basename(file, ".json");
    if (quota === undefined) badQuotas.add(named);
    else if (quotas.has(quota.username)) {
      bad.push({ file, reason: "another file is about the same username" });
      badQuotas.add(quota.username);
    } else quotas.set(quota.username, quota);
  }
  return { users: [...users.values()], quotas, badQuotas, bad };
}

/** The files of a folder with that suffix, sorted; undefined if there is no such folder. */
async function filesOf(folder: string, ending: string): Promise<readonly string[] | undefined> {
  try {
    const names = await readdir(folder);
    return names
      .filter((name) => name.endsWith(ending))
      .sort()
      .map((name) => join(folder, name));
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(fileErrorCode(error) ?? "")) return undefined;
    throw error;
  }
}

async function readAs<T>(file: string, bad: BadFile[], parse: (text: string) => T): Promise<T | undefined> {
  try {
    return parse(await readPlainFile(file));
  } catch (error) {
    bad.push({ file, reason: reasonOf(error) });
    return undefined;
  }
}

/** Parsers' messages include the text around the error, which may be a password. */
function reasonOf(error: unknown): string {
  if (error instanceof z.ZodError) {
    return error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`).join("; ");
  }
  if (error instanceof SyntaxError) return "is not valid JSON";
  if (fileErrorCode(error) === "ELOOP") return "is a symbolic link, which is not followed";
  return error instanceof Error ? (error.message.split("\n", 1)[0] ?? "") : String(error);
}

function toUser({ username, password, quota_tier, is_active, ...rest }: z.infer<typeof userSchema>): OldUser {
  const metadata = Object.fromEntries(Object.entries(rest).filter(([key]) => !secretField.test(key))) as Metadata;
  return { username, password, quota_tier, is_active, metadata };
}

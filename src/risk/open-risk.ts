import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { z } from "zod";
import { removeTemporaries, readPlainFile, writeFileAtomic } from "../lib/files/atomic-file.ts";
import { fileErrorCode } from "../lib/files/file-ops.ts";
import type { Log } from "../lib/log.ts";
import type { Redis } from "../lib/redis/redis.ts";
import { type RiskRecord, riskRecordSchema } from "./known-users.ts";
import { openSharedRisk } from "./redis/shared-risk.ts";
import { createTrustStore } from "./redis/trust-store.ts";
import { createRisk, type Risk, type RiskOptions } from "./risk.ts";

/** How often what has changed is written, in ms. A crash loses what was noted since. */
const saveEveryMs = 60_000;
/** Users whose records are turned into text in one piece. */
const usersAtOnce = 100;
const fileName = "trust.json";
const fileVersion = 1;
const fileSchema = z.object({ version: z.literal(fileVersion), users: z.record(z.string(), z.unknown()) });

export interface OpenRiskOptions extends Omit<RiskOptions, "saved"> {
  /** The absolute path of users/: the steps are in trust.json. */
  readonly usersDir: string;
  readonly log: Log;
  /** Where all processes share the steps; the file is a copy then. */
  readonly redis?: Redis | undefined;
}

/**
 * Opens the trust steps as they were stored. An unreadable file costs what was noted, never the start: everybody begins
 * at the step of an account of that age.
 */
export async function openRisk({
  usersDir,
  log,
  redis,
  ...options
}: OpenRiskOptions): Promise<Risk & { close(): Promise<void> }> {
  const path = join(usersDir, fileName);
  await removeTemporaries(usersDir, ".json");
  const saved = await load(path, log);
  const shared = redis === undefined ? undefined : await openSharedRisk({ ...options, saved, redis, log });
  const risk: Risk = shared ?? createRisk({ ...options, saved });
  let saving = Promise.resolve();
  let hasFailed = false;

  async function save(): Promise<void> {
    if (!risk.takeChanged() && !hasFailed) return;
    try {
      await writeFileAtomic(path, await textOf(risk));
      hasFailed = false;
    } catch (err) {
      hasFailed = true;
      log.error({ err, file: path }, "the users' trust steps could not be written");
    }
  }

  const timer = setInterval(() => {
    saving = saving.then(save);
  }, saveEveryMs).unref();
  return {
    ...risk,
    async close() {
      clearInterval(timer);
      await shared?.close();
      await saving.then(save);
    },
  };
}

/**
 * Writes what all processes share of the users' trust into the file, as each of them does; nothing where they share
 * nothing. Throws as Redis.call, and Node's errors.
 */
export async function copySharedTrust(redis: Redis, usersDir: string): Promise<void> {
  const store = createTrustStore(redis);
  const records = new Map<string, RiskRecord>();
  for (const tag of redis.tags)
    for (const [user, { record }] of await store.all(tag)) if (record !== undefined) records.set(user, record);
  if (records.size > 0) await writeFileAtomic(join(usersDir, fileName), await textOf({ records: () => records }));
}

/** The text of the file, made in pieces, so that requests go on meanwhile. */
async function textOf(risk: Pick<Risk, "records">): Promise<string> {
  let text = `{"version":${fileVersion},"users":{`;
  let count = 0;
  for (const [user, record] of risk.records()) {
    text += `${count === 0 ? "" : ","}${JSON.stringify(user)}:${JSON.stringify(record)}`;
    if (++count % usersAtOnce === 0) await setImmediate();
  }
  return `${text}}}`;
}

/** The stored users; one that is invalid is left out. */
async function load(path: string, log: Log): Promise<ReadonlyMap<string, RiskRecord>> {
  const users = new Map<string, RiskRecord>();
  try {
    const { users: stored } = fileSchema.parse(JSON.parse(await readPlainFile(path)));
    for (const [name, record] of Object.entries(stored)) {
      const parsed = riskRecordSchema.safeParse(record);
      if (parsed.success) users.set(name, parsed.data);
      else log.warn({ file: path, user: name }, "the stored trust of a user is invalid: it begins anew");
    }
  } catch (err) {
    if (fileErrorCode(err) !== "ENOENT")
      log.warn({ err, file: path }, "the users' trust steps could not be read: they begin anew");
  }
  return users;
}

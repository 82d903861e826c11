import type { Account } from "../identity/account-schema.ts";
import type { Actor } from "../admin/audit.ts";
import { findUser } from "../admin/find-user.ts";
import { createQuotaAdmin, type QuotaAdmin } from "../admin/quota-admin.ts";
import { createQuotaGrants, type QuotaGrants } from "../admin/quota-grants.ts";
import { closeAll, type Closer } from "../lib/close-all.ts";
import { systemClock as clock } from "../lib/clock.ts";
import { createAllowances } from "../quota/allowances.ts";
import type { QuotaLimit } from "../quota/ledger.ts";
import { bringBackQuotas } from "../quota/memory/bring-back.ts";
import { openMemoryLedger } from "../quota/memory/memory-ledger.ts";
import { createTiers } from "../quota/tiers.ts";
import { openOffline, silent } from "./open-offline.ts";
import type { CommandIo } from "./this-process.ts";

/** The context of the commands: the same operations as the admin API. */
export interface CliQuota {
  /** Throws AppError `invalid_request`, `not_found`. */
  find(name: string): Promise<{ readonly account: Account; readonly limits: readonly QuotaLimit[] }>;
  readonly grants: QuotaGrants;
  /** Opens the ledger, which only one process may use. Rejects with LockedError while a server uses it. */
  openUsed(): Promise<QuotaAdmin>;
  /**
   * Resets periods that begin in the future, because a clock was wrong, to the current ones. Returns the affected
   * users. Rejects with LockedError beside a server.
   * @param name absent: all users
   */
  bringBack(name?: string): Promise<readonly string[]>;
  /** Who runs the command. */
  readonly actor: Actor;
}

/** Opens the files, does the work, and closes them again. */
export async function withQuota<Result>(
  configFile: string | undefined,
  io: CommandIo,
  work: (quota: CliQuota) => Promise<Result>,
): Promise<Result> {
  const closers: Closer[] = [];
  try {
    return await work(await open(configFile, io, closers));
  } finally {
    await closeAll(closers);
  }
}

async function open(configFile: string | undefined, io: CommandIo, closers: Closer[]): Promise<CliQuota> {
  const offline = await openOffline(configFile, io, closers);
  const { users, audit, actor, usersDir } = offline;
  const { quota, storage, usage } = offline.config;
  const { timezone, currency } = quota;
  const ledgerOptions = { usersDir, clock, log: silent, quota, storage, usage };
  const { limitsOf } = createAllowances({ tiers: createTiers(quota), currency, timezone, clock });

  return {
    async find(name) {
      const account = await findUser(users, name);
      return { account, limits: limitsOf(account) };
    },
    grants: createQuotaGrants({ users, limitsOf, quota, clock, audit }),
    async openUsed() {
      await offline.lock();
      const ledger = await openMemoryLedger(ledgerOptions);
      closers.push(() => ledger.close());
      return createQuotaAdmin({ users, apiKeys: { list: () => [] }, ledger, limitsOf, currency, audit });
    },
    async bringBack(name) {
      await offline.lock();
      const moved = await bringBackQuotas(ledgerOptions, name);
      for (const user of moved) {
        await audit.record(actor, { action: "quota.brought_back", user, before: null, after: null });
      }
      return moved;
    },
    actor,
  };
}

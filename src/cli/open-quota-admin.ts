import type { Account } from "../identity/account-schema.ts";
import type { Actor } from "../admin/audit.ts";
import { findUser } from "../admin/find-user.ts";
import { createQuotaAdmin, type QuotaAdmin } from "../admin/quota-admin.ts";
import { createQuotaGrants, type QuotaGrants } from "../admin/quota-grants.ts";
import { systemClock as clock } from "../lib/clock.ts";
import { createAllowances } from "../quota/allowances.ts";
import type { QuotaLimit } from "../quota/ledger.ts";
import { createTiers } from "../quota/tiers.ts";
import { type CommandPorts, withPorts } from "./command-ports.ts";
import type { StatePorts } from "./state-ports.ts";
import type { CommandIo } from "./this-process.ts";

/** The context of the commands: the same operations as the admin API. */
export interface CliQuota extends Pick<StatePorts, "bringBack"> {
  /** Throws AppError `invalid_request`, `not_found`. */
  find(name: string): Promise<{ readonly account: Account; readonly limits: readonly QuotaLimit[] }>;
  readonly grants: QuotaGrants;
  /** Opens what is used. Rejects with LockedError while a server has it in memory. */
  openUsed(): Promise<QuotaAdmin>;
  /** Who runs the command. */
  readonly actor: Actor;
}

/** Opens the state, does the work, and closes it again. */
export function withQuota<Result>(
  configFile: string | undefined,
  io: CommandIo,
  work: (quota: CliQuota) => Promise<Result>,
): Promise<Result> {
  return withPorts(configFile, io, (ports) => work(quotaOf(ports, io)));
}

function quotaOf(ports: CommandPorts, io: Pick<CommandIo, "err">): CliQuota {
  const { users, audit, actor } = ports;
  const { quota } = ports.config;
  const { timezone, currency } = quota;
  const { limitsOf } = createAllowances({ tiers: createTiers(quota), currency, timezone, clock });

  /** Where a file can't be read, it is that, and not that there is no such user. */
  async function readable(name: string, error: unknown): Promise<never> {
    const problem = (await users.problems()).find(({ file }) => file === `${name}.toml`);
    if (problem === undefined) throw error;
    const { file, line, reason } = problem;
    throw new Error(`${file}${line === undefined ? "" : `:${line}`}: ${reason}`);
  }

  return {
    async find(name) {
      const account = await findUser(users, name).catch((error: unknown) => readable(name, error));
      return { account, limits: limitsOf(account) };
    },
    grants: createQuotaGrants({ users, limitsOf, quota, clock, audit }),
    async openUsed() {
      const ledger = await ports.openLedger();
      // What is refused because of them says only that there is one: users see that too.
      for (const { file, reason } of await ledger.problems()) io.err(`warning: ${file}: ${reason}`);
      return createQuotaAdmin({ users, apiKeys: { list: () => [] }, ledger, limitsOf, currency, audit });
    },
    async bringBack(name) {
      const moved = await ports.bringBack(name);
      for (const user of moved) {
        await audit.record(actor, { action: "quota.brought_back", user, before: null, after: null });
      }
      return moved;
    },
    actor,
  };
}

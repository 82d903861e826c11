import type { Actor } from "../admin/audit.ts";
import { createCredentialsAdmin, type CredentialsAdmin } from "../admin/credentials-admin.ts";
import { createUserAdmin, type UserAdmin } from "../admin/user-admin.ts";
import type { Users } from "../identity/users.ts";
import { systemClock as clock } from "../lib/clock.ts";
import { LockedError } from "../lib/files/lock-file.ts";
import { type CommandPorts, withPorts } from "./command-ports.ts";
import type { Access } from "./state-ports.ts";
import type { CommandIo } from "./this-process.ts";

/** The context of the commands: the same operations as the admin API. */
export interface CliAdmin {
  readonly users: UserAdmin;
  readonly credentials: CredentialsAdmin;
  /** What is wrong with stored accounts. In Redis: with those that the command has read. */
  readonly problems: Users["problems"];
  /** Who runs the command. */
  readonly actor: Actor;
}

export interface OpenOptions {
  readonly configFile: string | undefined;
  readonly io: CommandIo;
  /**
   * The equivalent route of a running server. Set for commands that need sessions and keys: with files, a server keeps
   * these in memory and would overwrite them, so such commands can't run beside a server.
   */
  readonly route?: string | undefined;
}

/** Opens the state, does the work, and closes it again. Rejects if a running server prevents it. */
export function withUserAdmin(options: OpenOptions, work: (admin: CliAdmin) => Promise<void>): Promise<void> {
  const { configFile, io, route } = options;
  return withPorts(configFile, io, async (ports) => work(await adminOf(ports, route)));
}

async function adminOf(ports: CommandPorts, route: string | undefined): Promise<CliAdmin> {
  const { users, audit, actor } = ports;
  const { quota, risk } = ports.config;
  const access = route === undefined ? ports.access : await openAccess(ports, route);
  const parts = { users, ...access, audit };
  return {
    users: createUserAdmin({
      ...parts,
      tierNames: () => Object.keys(quota.tiers),
      stepNames: () => risk.steps.map(({ name }) => name),
      config: () => ports.config,
      clock,
    }),
    // No command is about login locks.
    credentials: createCredentialsAdmin({ ...parts, loginGuard: { locked: () => [], unlock: () => false } }),
    problems: () => users.problems(),
    actor,
  };
}

async function openAccess(ports: CommandPorts, route: string): Promise<Access> {
  try {
    return await ports.openAccess();
  } catch (error) {
    if (!(error instanceof LockedError)) throw error;
    throw new Error(`the running server keeps sessions and API keys: use ${route}, or stop it first (${error.holder})`);
  }
}

import { randomUUID } from "node:crypto";
import { openFileApiKeys } from "../identity/files/file-api-keys.ts";
import { openFileExternalLogins } from "../identity/files/file-external-logins.ts";
import { openFileSessions } from "../identity/files/file-sessions.ts";
import { openFileUsers } from "../identity/files/file-users.ts";
import { systemClock as clock } from "../lib/clock.ts";
import { bringBackQuotas } from "../quota/memory/bring-back.ts";
import { openMemoryLedger } from "../quota/memory/memory-ledger.ts";
import type { Access, StateOptions, StatePorts } from "./state-ports.ts";
import { lockUsers } from "./lock-users.ts";
import { silent } from "./this-process.ts";
import { sessionFigures } from "../identity/files/session.ts";

/** Opens the users folder. Only accounts can be changed beside a server, which notices: it has the rest in memory. */
export async function openFilePorts({ config, usersDir, io, hashPassword, onOpen }: StateOptions): Promise<StatePorts> {
  const { auth, panel, quota, storage, usage } = config;
  const files = { usersDir, clock, log: silent };
  const ledgerOptions = { ...files, quota, storage, usage };
  const users = await openFileUsers({
    ...files,
    tierNames: () => Object.keys(quota.tiers),
    hashPassword,
    watch: false,
  });
  onOpen(() => users.close());

  async function lock(): Promise<void> {
    const held = await lockUsers(usersDir, io);
    onOpen(() => held.release());
  }

  return {
    users,
    access: untouched,
    async openAccess() {
      await lock();
      const owned = { ...files, newId: randomUUID };
      const sessions = await openFileSessions({
        ...owned,
        findAccount: (name) => users.get(name),
        emit: () => undefined,
        figures: sessionFigures(
          () => auth,
          () => panel,
        ),
      });
      onOpen(() => sessions.close());
      const apiKeys = await openFileApiKeys(owned);
      onOpen(() => apiKeys.close());
      const externalLogins = await openFileExternalLogins(owned);
      onOpen(() => externalLogins.close());
      return { sessions, apiKeys, externalLogins };
    },
    async openLedger() {
      await lock();
      const ledger = await openMemoryLedger(ledgerOptions);
      onOpen(() => ledger.close());
      return ledger;
    },
    async bringBack(name) {
      await lock();
      return bringBackQuotas(ledgerOptions, name);
    },
  };
}

/**
 * Beside a server, sessions and keys are not touched: a new password or a disabled account ends sessions through the
 * token version in the user file, which the server notices.
 */
const untouched: Access = {
  sessions: { list: () => [], end: () => false, endAll: () => 0 },
  apiKeys: { list: () => [], revoke: () => false, revokeAll: () => 0 },
  externalLogins: { unlinkAll: () => undefined },
};

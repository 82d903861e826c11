import { randomUUID } from "node:crypto";
import { onTestFinished } from "vitest";
import { parseConfig } from "../../src/config/load.ts";
import { openFileApiKeys } from "../../src/identity/files/file-api-keys.ts";
import { openFileExternalLogins } from "../../src/identity/files/file-external-logins.ts";
import { openFileGroups } from "../../src/identity/files/file-groups.ts";
import { openFileSessions } from "../../src/identity/files/file-sessions.ts";
import { createMemoryLoginGuard } from "../../src/identity/memory/memory-login-guard.ts";
import { createMemoryNonces } from "../../src/identity/memory/memory-nonces.ts";
import { delayed } from "../support/backends.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { rule } from "../support/login-guard.ts";
import { tempDir } from "../support/temp-dir.ts";
import { useStore } from "../identity/support.ts";
import { describeApiKeys } from "./api-keys.ts";
import { describeExternalLogins } from "./external-logins.ts";
import { configGroups, describeGroups } from "./groups.ts";
import { describeLoginGuard } from "./login-guard.ts";
import { describeNonces } from "./nonces.ts";
import { describeSessions } from "./sessions.ts";
import { describeUsers } from "./users.ts";

const openUsers: Parameters<typeof describeUsers>[1] = async (clock) => (await useStore(tempDir(), { clock })).store;
describeUsers("users in files", openUsers);
describeUsers("users in files, 3 ms late", delayed(openUsers));

const openSessions: Parameters<typeof describeSessions>[1] = async (context) => {
  const sessions = await openFileSessions({
    usersDir: tempDir(),
    log: createCapturedLog(),
    emit: () => undefined,
    newId: randomUUID,
    figures: {
      sessionSeconds: 30 * 86_400,
      idleSeconds: 7 * 86_400,
      cookieSeconds: 2 * 86_400,
      leewaySeconds: 10,
      maxSessions: 50,
    },
    ...context,
  });
  onTestFinished(() => sessions.close());
  return sessions;
};
describeSessions("sessions in files", openSessions);
describeSessions("sessions in files, 3 ms late", delayed(openSessions));

const openApiKeys: Parameters<typeof describeApiKeys>[1] = async (clock) => {
  const keys = await openFileApiKeys({ usersDir: tempDir(), clock, log: createCapturedLog(), newId: randomUUID });
  onTestFinished(() => keys.close());
  return keys;
};
describeApiKeys("API keys in files", openApiKeys);
describeApiKeys("API keys in files, 3 ms late", delayed(openApiKeys));

const openGroups: Parameters<typeof describeGroups>[1] = async () => {
  const { groups } = parseConfig(configGroups, "test.toml");
  const opened = await openFileGroups({ usersDir: tempDir(), groups, log: createCapturedLog() });
  onTestFinished(() => opened.close());
  return opened;
};
describeGroups("groups in files", openGroups);
describeGroups("groups in files, 3 ms late", delayed(openGroups));

const openLogins: Parameters<typeof describeExternalLogins>[1] = async () => {
  const logins = await openFileExternalLogins({ usersDir: tempDir(), log: createCapturedLog() });
  onTestFinished(() => logins.close());
  return logins;
};
describeExternalLogins("linked logins in files", openLogins);
describeExternalLogins("linked logins in files, 3 ms late", delayed(openLogins));

const openGuard: Parameters<typeof describeLoginGuard>[1] = (clock) =>
  Promise.resolve(
    createMemoryLoginGuard({
      rule,
      maxTracked: 1000,
      knownAddressMs: 86_400_000,
      clock,
      isShared: () => false,
      emit: () => undefined,
    }),
  );
describeLoginGuard("the login guard in memory", openGuard);
describeLoginGuard("the login guard in memory, 3 ms late", delayed(openGuard));

const openNonces: Parameters<typeof describeNonces>[1] = (clock) => Promise.resolve(createMemoryNonces(clock));
describeNonces("nonces in memory", openNonces);
describeNonces("nonces in memory, 3 ms late", delayed(openNonces));

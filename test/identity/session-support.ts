import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "vitest";
import type { Account } from "../../src/identity/account-schema.ts";
import {
  openFileSessions,
  type FileSessions,
  type FileSessionsOptions,
} from "../../src/identity/files/file-sessions.ts";
import type { Origin } from "../../src/identity/sessions.ts";
import type { ProxyEvent } from "../../src/events/catalogue.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { createManualClock, type ManualClock } from "../support/manual-clock.ts";

export const bob: Account = {
  username: "bob",
  password_hash: "",
  quota_tier: "basic",
  roles: ["user"],
  is_active: true,
  token_version: 1,
  metadata: {},
};

export const laptop: Origin = { ip: "192.0.2.1", client: "laptop", traceId: "trace" };

export const day = 86_400_000;

/** Sessions of bob over a folder, with everything that they touch in reach. */
export interface SessionsUnderTest {
  sessions: FileSessions;
  account: Account;
  readonly clock: ManualClock;
  readonly events: ProxyEvent[];
  readonly log: ReturnType<typeof createCapturedLog>;
  /** Forgets everything but the disk, as a crash does. */
  restart(): Promise<void>;
  /** The text of the file. */
  file(): Promise<string>;
}

/** 30 days at most, 7 days idle, 10 s leeway. */
export const figures = {
  sessionSeconds: 30 * 86_400,
  idleSeconds: 7 * 86_400,
  cookieSeconds: 2 * 86_400,
  leewaySeconds: 10,
  maxSessions: 50,
};

/** Opens the sessions. */
export async function useSessions(
  usersDir: string,
  options: Partial<FileSessionsOptions> = {},
): Promise<SessionsUnderTest> {
  const clock = createManualClock(Date.UTC(2026, 10, 22));
  const events: ProxyEvent[] = [];
  const log = createCapturedLog();
  const open = (): Promise<FileSessions> =>
    openFileSessions({
      usersDir,
      clock,
      log,
      emit: (event) => events.push(event),
      newId: randomUUID,
      findAccount: (name) => (name === "bob" ? test.account : undefined),
      figures,
      ...options,
    });
  const test: SessionsUnderTest = {
    sessions: await open(),
    account: bob,
    clock,
    events,
    log,
    async restart() {
      test.sessions = await open();
    },
    file: () => readFile(join(usersDir, "bob.sessions.toml"), "utf8"),
  };
  return test;
}

/** An error of the table. */
export function refusal(code: string): unknown {
  return expect.objectContaining({ code });
}

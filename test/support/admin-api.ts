import { onTestFinished } from "vitest";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { alicePassword, bearer, startProxy, userFile, type ProxyOptions, type RunningProxy } from "./start-proxy.ts";

/** An answer of JSON; null where there is no body. */
interface ApiAnswer {
  readonly status: number;
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- tests look into any JSON
  readonly body: any;
}

export interface AdminApi {
  readonly proxy: RunningProxy;
  /** Asks as a user, who is logged in at the first time. */
  as(user: string, method: string, path: string, body?: object): Promise<ApiAnswer>;
  /** Asks as boss, an administrator. */
  get(path: string): Promise<ApiAnswer>;
  post(path: string, body?: object): Promise<ApiAnswer>;
  delete(path: string): Promise<ApiAnswer>;
  /** All lines of the audit log, the oldest first, without the time. */
  audits(): Promise<readonly Readonly<Record<string, unknown>>[]>;
}

/** A proxy for the running test, with the users alice and bob, the auditor eve and the administrators boss and chief. */
export async function startAdminApi(options: ProxyOptions = {}): Promise<AdminApi> {
  const users = {
    alice: userFile("alice", alicePassword),
    bob: userFile("bob", alicePassword),
    eve: userFile("eve", alicePassword, 'roles = ["auditor"]\n'),
    boss: userFile("boss", alicePassword, 'roles = ["admin"]\n'),
    chief: userFile("chief", alicePassword, 'roles = ["admin"]\n'),
    ...options.users,
  };
  const proxy = await startProxy({ ...options, users });
  onTestFinished(() => proxy.dispose());
  const tokens = new Map<string, Promise<string>>();

  async function as(user: string, method: string, path: string, body?: object): Promise<ApiAnswer> {
    const token = tokens.get(user) ?? proxy.login(user);
    tokens.set(user, token);
    const answer = await fetch(`${proxy.url}${path}`, {
      method,
      headers: { ...bearer(await token), ...(body === undefined ? {} : { "content-type": "application/json" }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    return { status: answer.status, body: text === "" ? null : (JSON.parse(text) as unknown) };
  }

  return {
    proxy,
    as,
    get: (path) => as("boss", "GET", path),
    post: (path, body) => as("boss", "POST", path, body),
    delete: (path) => as("boss", "DELETE", path),
    audits: () => readAudits(proxy.folder),
  };
}

/** All lines of the audit log in a proxy's folder, the oldest first, without the time. */
export async function readAudits(folder: string): Promise<readonly Readonly<Record<string, unknown>>[]> {
  const logs = join(folder, "logs", "audit");
  const names = (await readdir(logs).catch(() => [])).sort();
  const texts = await Promise.all(names.map((name) => readFile(join(logs, name), "utf8")));
  // Each line ends with a line end, and a file is there before its first line.
  const lines = texts.flatMap((text) => text.split("\n")).filter((line) => line !== "");
  return lines.map((line) => {
    const facts = JSON.parse(line) as Record<string, unknown>;
    return Object.fromEntries(Object.entries(facts).filter(([key]) => key !== "ts"));
  });
}

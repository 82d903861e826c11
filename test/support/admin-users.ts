import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { jsonOf, logIn, type JsonAnswer } from "./accounts.ts";
import { bearer, startProxy, userFile, type RunningProxy } from "./start-proxy.ts";

/** A user as /admin/users answers. */
export interface UserAnswer {
  readonly username: string;
  readonly state: string;
  readonly password?: string;
  readonly metadata: Readonly<Record<string, unknown>>;
}

export interface AdminProxy extends RunningProxy {
  /** Of root, who is the only admin. */
  readonly admin: string;
  /** A request with a body of JSON where there is one, by root or by the bearer of another token. */
  send<T = UserAnswer>(
    route: string,
    body?: unknown,
    headers?: Readonly<Record<string, string>>,
    by?: string,
  ): Promise<JsonAnswer<T>>;
  /** Makes a user with `goodPassword`. */
  add(username: string, more?: object): Promise<JsonAnswer<UserAnswer>>;
  etagOf(name: string): Promise<string>;
  /** The lines of the audit log that are about a user. */
  audited(user: string): Promise<readonly Readonly<Record<string, unknown>>[]>;
}

export const goodPassword = "a long enough password";

/** Starts a proxy with an admin and these users beside. */
export async function startAdminProxy(users: Readonly<Record<string, string>> = {}): Promise<AdminProxy> {
  const root = userFile("root", goodPassword, 'roles = ["user", "admin"]\n');
  const proxy = await startProxy({ users: { root, ...users } });
  const admin = (await logIn(proxy, "root", goodPassword)).token;

  const send: AdminProxy["send"] = (route, body, headers = {}, by = admin) => {
    const [method = "", path = ""] = route.split(" ");
    const json = body === undefined ? {} : { "content-type": "application/json" };
    return jsonOf(
      fetch(`${proxy.url}${path}`, {
        method,
        headers: { ...bearer(by), ...json, ...headers },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      }),
    );
  };

  return {
    ...proxy,
    admin,
    send,
    add: (username, more = {}) => send("POST /admin/users", { username, password: goodPassword, ...more }),
    async etagOf(name) {
      const answer = await fetch(`${proxy.url}/admin/users/${name}`, { headers: bearer(admin) });
      return answer.headers.get("etag") ?? "";
    },
    async audited(user) {
      const folder = join(proxy.folder, "logs", "audit");
      const texts = await Promise.all((await readdir(folder)).map((file) => readFile(join(folder, file), "utf8")));
      const lines = texts.join("").split("\n").filter(Boolean);
      return lines.map((line) => JSON.parse(line) as Record<string, unknown>).filter((line) => line.user === user);
    },
  };
}

import { type Call, type Json, queryOf } from "./call.ts";

/** The calls of operators. Shapes are those of the proxy's /openapi.json. */
export interface AdminClient {
  users(query?: {
    readonly cursor?: string;
    readonly limit?: number;
    readonly search?: string;
    readonly tier?: string;
    readonly role?: string;
    readonly state?: string;
  }): Promise<Json>;
  user(name: string): Promise<Json>;
  /** Without a password a one-time one is made, and is in the answer. */
  createUser(user: { readonly username: string; readonly [field: string]: unknown }): Promise<Json>;
  updateUser(name: string, changes: object): Promise<Json>;
  deleteUser(name: string): Promise<void>;
  resetPassword(name: string): Promise<Json>;
  unlock(name: string): Promise<void>;
  quota(name: string): Promise<Json>;
  /** More of a limit for a time. */
  grantQuota(name: string, grant: object): Promise<Json>;
  /** Changes what counts as used. */
  adjustQuota(name: string, change: object): Promise<Json>;
  usage(query?: object): Promise<Json>;
  activeUsers(): Promise<Json>;
  audit(query?: object): Promise<Json>;
  providers(): Promise<Json>;
  /** Any other admin route, such as `("POST", "/admin/config/reload")`. */
  call(method: string, path: string, body?: object): Promise<unknown>;
}

/** Creates the admin calls. */
export function createAdminClient(call: Call): AdminClient {
  const json = async (method: string, path: string, body?: object): Promise<Json> =>
    (await call(method, path, body)) as Json;
  const ofUser = (name: string, rest = ""): string => `/admin/users/${encodeURIComponent(name)}${rest}`;
  return {
    users: (query = {}) => json("GET", `/admin/users${queryOf(query)}`),
    user: (name) => json("GET", ofUser(name)),
    createUser: (user) => json("POST", "/admin/users", user),
    updateUser: (name, changes) => json("PATCH", ofUser(name), changes),
    async deleteUser(name) {
      await call("DELETE", ofUser(name));
    },
    resetPassword: (name) => json("POST", ofUser(name, "/reset-password")),
    async unlock(name) {
      await call("POST", ofUser(name, "/unlock"));
    },
    quota: (name) => json("GET", ofUser(name, "/quota")),
    grantQuota: (name, grant) => json("POST", ofUser(name, "/quota/grant"), grant),
    adjustQuota: (name, change) => json("POST", ofUser(name, "/quota/adjust"), change),
    usage: (query = {}) => json("GET", `/admin/usage${queryOf(query)}`),
    activeUsers: () => json("GET", "/admin/active-users"),
    audit: (query = {}) => json("GET", `/admin/audit${queryOf(query)}`),
    providers: () => json("GET", "/admin/providers"),
    call,
  };
}

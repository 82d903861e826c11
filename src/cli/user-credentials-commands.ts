import { counted } from "./command-line.ts";
import type { UserCall, UserCommand } from "./user-options.ts";

/** The commands for sessions and API keys, which a running server over files has in memory. */
export const credentialsCommands: Readonly<Record<string, UserCommand>> = {
  archive: {
    route: "DELETE /admin/users/NAME",
    run: async (name, { users, actor, io }) => {
      await users.archive(actor, name);
      io.out(`${name} is archived. What was used stays with the name.`);
    },
  },
  sessions: { route: "GET /admin/users/NAME/sessions", run: listSessions },
  "end-sessions": {
    route: "DELETE /admin/users/NAME/sessions",
    run: async (name, { credentials, actor, io }) => {
      const ended = await credentials.endSessions(actor, name);
      io.out(`${counted(ended, "session")} of ${name} ${ended === 1 ? "has" : "have"} ended.`);
    },
  },
  keys: { route: "GET /admin/users/NAME/keys", run: listKeys },
  "revoke-key": {
    route: "DELETE /admin/users/NAME/keys/ID",
    words: [2, 2],
    run: async (name, { credentials, actor, words: [id = ""], io }) => {
      await credentials.revokeKey(actor, name, id);
      io.out(`The API key ${id} of ${name} is revoked.`);
    },
  },
};

async function listSessions(name: string, { credentials, io }: UserCall): Promise<void> {
  for (const { id, createdAt, usedAt, ip, client } of await credentials.sessions(name)) {
    io.out(`${id}  begun ${iso(createdAt)}  used ${iso(usedAt)}  from ${ip}  ${client}`.trimEnd());
  }
}

async function listKeys(name: string, { credentials, io }: UserCall): Promise<void> {
  for (const { id, name: label, createdAt, lastUsedAt, expiresAt } of await credentials.keys(name)) {
    const end = expiresAt === null ? "" : `  ends ${iso(expiresAt)}`;
    io.out(`${id}  made ${iso(createdAt)}  used ${lastUsedAt === null ? "never" : iso(lastUsedAt)}${end}  ${label}`);
  }
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}

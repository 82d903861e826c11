import { createHash } from "node:crypto";
import { z } from "zod";
import { AppError } from "../errors.ts";
import type { Awaitable } from "../lib/awaitable.ts";

/** Who somebody is at an identity provider: the pair never changes, whatever else the provider says. */
export interface ExternalIdentity {
  /** As the provider's discovery document calls it. */
  readonly issuer: string;
  readonly sub: string;
}

/** An identity at a provider that logs in to an account. */
interface ExternalLogin extends ExternalIdentity {
  readonly user: string;
  /** ms since the epoch. One older than the account belonged to an earlier user of the name. */
  readonly linkedAt: number;
}

/** Which identities at providers log in to which accounts: each to one at most. */
export interface ExternalLogins {
  get(identity: ExternalIdentity): Awaitable<ExternalLogin | undefined>;
  /** Those of an account, the oldest first. */
  ofUser(user: string): Awaitable<readonly ExternalLogin[]>;
  /**
   * Links an identity; stored when this resolves. Does nothing where it is linked to that account already. Of several
   * calls at once for one identity exactly one wins.
   *
   * @throws AppError `conflict` (linked to another account, or the account has 20 already), `storage_unavailable`
   */
  link(login: ExternalLogin): Awaitable<void>;
  /** Returns false if the identity was not linked to that account. @throws AppError `storage_unavailable` */
  unlink(user: string, identity: ExternalIdentity): Awaitable<boolean>;
  /** Ends all of an account. @throws AppError `storage_unavailable` */
  unlinkAll(user: string): Awaitable<void>;
}

/**
 * Where the records are: `logins`, one for each identity, which decides; and `linked`, one for each user with the names
 * of the former, which only finds them.
 */
export interface LoginRecords {
  read(kind: LoginRecordKind, name: string): Awaitable<string | undefined>;
  /**
   * Changes a record as it is stored now; stored when this resolves. May call `edit` again if somebody else was faster.
   *
   * @param edit the text instead, null to remove it, undefined to leave it
   */
  change(
    kind: LoginRecordKind,
    name: string,
    edit: (text: string | undefined) => string | null | undefined,
  ): Awaitable<void>;
  /** Logs which record can't be read. */
  damaged(kind: LoginRecordKind, name: string): void;
}
export type LoginRecordKind = "logins" | "linked";

const maxOfUser = 20;

const loginSchema = z.strictObject({ issuer: z.string(), sub: z.string(), user: z.string(), linkedAt: z.int().min(0) });
const linkedSchema = z.array(z.string().regex(/^[0-9a-f]{32}$/));

/**
 * The port over records, in files or in Redis. A record that can't be read is logged and kept as it is. Nobody can log in
 * with it, and it blocks nothing else.
 */
export function createExternalLogins(records: LoginRecords): ExternalLogins {
  /** The login in the text of a record. @throws AppError `storage_unavailable` if there is none in it */
  function parseLogin(name: string, text: string): ExternalLogin {
    return readAs(loginSchema, text) ?? refuse("logins", name);
  }

  /** The names in the text of a record. @throws as parseLogin */
  function parseNames(user: string, text: string | undefined): readonly string[] {
    return text === undefined ? [] : (readAs(linkedSchema, text) ?? refuse("linked", user));
  }

  function refuse(kind: LoginRecordKind, name: string): never {
    records.damaged(kind, name);
    throw new DamagedError();
  }

  async function byName(name: string): Promise<ExternalLogin | undefined> {
    const text = await records.read("logins", name);
    return text === undefined ? undefined : parseLogin(name, text);
  }

  async function namesOf(user: string): Promise<readonly string[]> {
    const text = await records.read("linked", user);
    return unlessDamaged(() => parseNames(user, text), []);
  }

  /** Names of identities that are not linked, or to others, do no harm: they are looked up. */
  async function removeName(user: string, name: string): Promise<void> {
    await records.change("linked", user, (text) => {
      const names = unlessDamaged(() => parseNames(user, text), []);
      if (!names.includes(name)) return undefined;
      return names.length === 1 ? null : JSON.stringify(names.filter((one) => one !== name));
    });
  }

  async function unlinkName(user: string, name: string): Promise<boolean> {
    let found = false;
    await records.change("logins", name, (text) => {
      found = text !== undefined && unlessDamaged(() => parseLogin(name, text).user === user, false);
      return found ? null : undefined;
    });
    return found;
  }

  async function ofUser(user: string): Promise<readonly ExternalLogin[]> {
    const names = await namesOf(user);
    const texts = await Promise.all(names.map(async (name) => records.read("logins", name)));
    return texts.flatMap((text, index) => {
      if (text === undefined) return [];
      const login = unlessDamaged(() => parseLogin(names[index] ?? "", text), undefined);
      return login?.user === user ? [login] : [];
    });
  }

  return {
    async get(identity) {
      const login = await byName(loginId(identity));
      return login !== undefined && isSame(login, identity) ? login : undefined;
    },
    ofUser,
    async link({ issuer, sub, user, linkedAt }) {
      const login: ExternalLogin = { issuer, sub, user, linkedAt };
      const name = loginId(login);
      if ((await ofUser(user)).filter((one) => !isSame(one, login)).length >= maxOfUser) {
        throw new AppError("conflict", { message: `An account has at most ${maxOfUser} linked logins.` });
      }
      // First where it is found: a link that nobody sees could not be undone.
      await records.change("linked", user, (text) => {
        const names = parseNames(user, text);
        return names.includes(name) ? undefined : JSON.stringify([...names, name].slice(-2 * maxOfUser));
      });
      await records.change("logins", name, (text) => {
        if (text === undefined) return JSON.stringify(login);
        if (parseLogin(name, text).user === user) return undefined;
        throw new AppError("conflict", { message: "This login is linked to another account." });
      });
    },
    async unlink(user, identity) {
      const name = loginId(identity);
      const found = await unlinkName(user, name);
      await removeName(user, name);
      return found;
    },
    async unlinkAll(user) {
      for (const name of await namesOf(user)) await unlinkName(user, name);
      await records.change("linked", user, (text) => (text === undefined ? undefined : null));
    },
  };
}

/** A record can't be read. */
class DamagedError extends AppError {
  constructor() {
    super("storage_unavailable", { message: "The linked login cannot be read: an operator has to mend its file." });
  }
}

function unlessDamaged<T>(read: () => T, otherwise: T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof DamagedError) return otherwise;
    throw error;
  }
}

/** Undefined for a text that is none of ours. */
function readAs<Schema extends z.ZodType>(schema: Schema, text: string): z.output<Schema> | undefined {
  try {
    return schema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** The public id of an identity: 128 bits of a digest, which may name a file. */
export function loginId({ issuer, sub }: ExternalIdentity): string {
  return createHash("sha256")
    .update(JSON.stringify([issuer, sub]))
    .digest("hex")
    .slice(0, 32);
}

function isSame(a: ExternalIdentity, b: ExternalIdentity): boolean {
  return a.issuer === b.issuer && a.sub === b.sub;
}

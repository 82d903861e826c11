import { randomBytes } from "node:crypto";
import { AppError } from "../errors.ts";
import type { Emit } from "../events/catalogue.ts";
import type { Account } from "../identity/account-schema.ts";
import { type Codes, type InvitationBatch, type InvitationUse, parseCode, randomText } from "../identity/codes.ts";
import type { Groups } from "../identity/groups.ts";
import type { LoginGuard, LoginTry } from "../identity/login-guard.ts";
import { checkNewPassword } from "../identity/passwords/new-password.ts";
import type { Passwords } from "../identity/passwords/password.ts";
import type { Origin } from "../identity/sessions.ts";
import { checkUserName } from "../identity/user-name.ts";
import type { Users } from "../identity/users.ts";
import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import type { Actor } from "./audit.ts";
import { checkUsableCode, codeId, codeRefusal, unknownCode, withUses } from "./code-batch.ts";
import type { NameHolder } from "./free-names.ts";
import { cannotTakeMember, type GroupAdmin } from "./group-admin.ts";
import type { UserAdmin } from "./user-admin.ts";

/** What a stranger sends. */
interface RegistrationRequest {
  readonly username: string;
  readonly password: string;
  readonly code: string;
  readonly origin: Origin;
}

/** Registration by invitation codes. */
export interface Registrations {
  /** Whether strangers can register now. */
  isOpen(): boolean;
  /**
   * Makes a user, exactly one for each use of a code. The use is claimed first, in the one step that decides who was
   * first; it counts once the user exists. Where the user can't be made, the claim is given back. What a crash leaves is
   * decided by whether the user exists, at the next start; over Redis, also when the code is used a minute later.
   *
   * @throws AppError `registration_off`, `invalid_request` (it names the field), `code_invalid` with a reason, `conflict`
   * (the name is taken), `login_blocked`, `login_busy`, `storage_unavailable`
   */
  register(request: RegistrationRequest): Promise<Account>;
  /** Decides claims that a crash has left. */
  recover(): Promise<void>;
}

export interface RegistrationOptions {
  readonly codes: Codes;
  readonly users: Pick<Users, "get">;
  readonly groups: Pick<Groups, "get">;
  readonly holderOf: NameHolder;
  readonly userAdmin: Pick<UserAdmin, "create" | "archive">;
  readonly groupAdmin: Pick<GroupAdmin, "addMember">;
  readonly loginGuard: Pick<LoginGuard, "start">;
  readonly passwords: Pick<Passwords, "hash" | "matches">;
  readonly tierNames: () => readonly string[];
  /** [security] in force. */
  readonly security: () => { readonly registration: "off" | "invitation"; readonly password_login: string };
  /** Whether no other process shares the state: then no claim from before the start is still under way. */
  readonly isAlone: boolean;
  readonly emit: Emit;
  readonly clock: Clock;
  readonly log: Log;
}

/** A code's place. */
interface Place {
  readonly batch: InvitationBatch;
  readonly index: number;
}

/** A registration takes a second at most; a claim this old is of one that has not ended. */
const staleMs = 60_000;

export function createRegistrations(options: RegistrationOptions): Registrations {
  const { codes, users, groups, holderOf, userAdmin, passwords, clock, log } = options;
  const startedAt = clock.now();

  const isOpen = (): boolean => {
    const { registration, password_login: passwordLogin } = options.security();
    return registration === "invitation" && passwordLogin === "all";
  };

  /** The code's place. An invented one costs the same work as an invented user name. */
  async function find(text: string, password: string): Promise<Place> {
    const parsed = parseCode(text);
    const batch = parsed === undefined ? undefined : await codes.get(parsed.batch);
    const index = batch?.codes.findIndex(({ digest }) => digest === parsed?.digest) ?? -1;
    if (batch === undefined || index < 0) {
      await passwords.matches(undefined, password);
      throw unknownCode();
    }
    if (batch.kind === "invitation") return { batch, index };
    throw codeRefusal("redemption", "This code adds quota to an account: log in and redeem it there.");
  }

  /** Refuses an invitation to what is not there any more. */
  async function checkTarget({ group, tier }: InvitationBatch): Promise<void> {
    const isGone =
      (tier !== null && !options.tierNames().includes(tier)) ||
      (group !== null && (await groups.get(group))?.origin !== "admin");
    if (isGone) throw codeRefusal("outdated", "This invitation does not fit any more: ask for another one.");
  }

  /** Changes the uses of a code as they are stored now. */
  async function changeUses(
    { batch: { id }, index }: Place,
    edit: (uses: readonly InvitationUse[], batch: InvitationBatch) => readonly InvitationUse[] | undefined,
  ): Promise<void> {
    await codes.change(id, (batch) => {
      const code = batch?.kind === "invitation" ? batch.codes[index] : undefined;
      if (batch?.kind !== "invitation" || code === undefined) throw unknownCode();
      const uses = edit(code.uses, batch);
      return uses === undefined ? undefined : withUses(batch, index, [...uses]);
    });
  }

  async function claim(place: Place, user: string): Promise<InvitationUse> {
    const use = { id: randomText(8), user, at: clock.now(), done: false };
    await changeUses(place, (uses, batch) => {
      checkUsableCode(batch, place.index, clock.now());
      return [...uses, { ...use, at: clock.now() }];
    });
    return use;
  }

  const giveBack = (place: Place, { id }: InvitationUse): Promise<void> =>
    changeUses(place, (uses) => uses.filter((use) => use.id !== id));

  /** Makes the use count. Returns whether the claim was still there. */
  async function confirm(place: Place, { id }: InvitationUse): Promise<boolean> {
    let isThere = false;
    await changeUses(place, (uses) => {
      isThere = uses.some((use) => use.id === id);
      return uses.map((use) => (use.id === id ? { ...use, done: true } : use));
    });
    return isThere;
  }

  async function addToGroup({ batch: { group } }: Place, actor: Actor, user: string): Promise<void> {
    if (group === null) return;
    try {
      await options.groupAdmin.addMember(actor, group, user);
    } catch (error) {
      // The user is there, and the group may be gone, or full: the code must not wait for it.
      if (!cannotTakeMember(error)) throw error;
      log.warn({ user, group, err: error }, "a user who registered could not be added to the group of the invitation");
    }
  }

  /** Decides claims whose registration has ended without saying how. */
  async function settle(place: Place): Promise<void> {
    const now = clock.now();
    const { batch, index } = place;
    for (const use of batch.codes[index]?.uses ?? []) {
      const hasEnded = use.at + staleMs <= now || (options.isAlone && use.at < startedAt);
      if (use.done || !hasEnded) continue;
      const account = await users.get(use.user);
      if (account?.invitation !== useName(place, use)) {
        await giveBack(place, use);
        continue;
      }
      await addToGroup(place, actorOf(place, { ip: "", traceId: "" }), use.user);
      await confirm(place, use);
    }
  }

  /** Makes the user, for a claimed use. */
  async function createUser(place: Place, use: InvitationUse, hash: string, actor: Actor): Promise<Account> {
    const { user: username } = use;
    const { tier } = place.batch;
    const invitation = useName(place, use);
    const fields = { username, password: { hash }, invitation, ...(tier === null ? {} : { quota_tier: tier }) };
    try {
      return (await userAdmin.create(actor, fields)).account;
    } catch (error) {
      const isMade = (await users.get(username))?.invitation === invitation;
      if (isMade) await confirm(place, use);
      // Where the outcome is unknown the claim stays, until it can be seen.
      else if (!isCode(error, "storage_unavailable")) await giveBack(place, use);
      throw error;
    }
  }

  async function enter(request: RegistrationRequest, username: string): Promise<Account> {
    const { password, code, origin } = request;
    const place = await find(code, password);
    await settle(place);
    const current = await codes.get(place.batch.id);
    if (current !== undefined) checkUsableCode(current, place.index, clock.now());
    await checkTarget(place.batch);
    // Before it costs a hash, and only for those who have a code.
    if ((await holderOf(username)) !== undefined) throw nameTaken(username);
    const hash = await passwords.hash(password, "stranger");
    const use = await claim(place, username);
    const actor = actorOf(place, origin);
    const account = await createUser(place, use, hash, actor);
    await addToGroup(place, actor, username);
    if (!(await confirm(place, use))) {
      // This process stood still for a minute, and another one has given the use to somebody else.
      await userAdmin.archive(actor, username);
      throw new AppError("storage_unavailable", { message: "The registration took too long. Try again." });
    }
    const { ip, traceId } = origin;
    const subject = codeId(place.batch, place.index);
    options.emit({ type: "user.registered", at: clock.now(), traceId, ip, user: username, subject });
    return account;
  }

  return {
    isOpen,
    async register(request) {
      if (!isOpen()) throw new AppError("registration_off");
      const username = checkUserName(request.username);
      checkNewPassword(request.password, username, "password");
      const { ip, traceId } = request.origin;
      // Counts for the address; no account is meant.
      const user = `register-${randomBytes(8).toString("hex")}`;
      const attempt = await options.loginGuard.start({ user, known: false, ip, traceId });
      try {
        const account = await enter(request, username);
        await end(attempt, "dropped");
        return account;
      } catch (error) {
        await end(attempt, isGuess(error) ? "failed" : "dropped");
        throw error;
      }
    },
    async recover() {
      for (const id of await codes.ids()) {
        const batch = await codes.get(id);
        if (batch?.kind !== "invitation") continue;
        for (const index of batch.codes.keys()) {
          await settle({ batch, index }).catch((err: unknown) => {
            log.warn({ code: codeId(batch, index), err }, "a registration that was cut off could not be decided");
          });
        }
      }
    },
  };
}

/** As the account has it: the code's id, and that of the use. */
function useName({ batch, index }: Place, { id }: InvitationUse): string {
  return `${codeId(batch, index)}.${id}`;
}

function actorOf({ batch, index }: Place, { ip, traceId }: Pick<Origin, "ip" | "traceId">): Actor {
  return { by: `invitation:${codeId(batch, index)}`, ip, traceId };
}

function nameTaken(username: string): AppError {
  return new AppError("conflict", { param: "username", message: `There is a user "${username}" already.` });
}

/** Codes, and the names of users, are not to be found out by trying. */
function isGuess(error: unknown): boolean {
  if (isCode(error, "conflict")) return true;
  return error instanceof AppError && error.extras.details?.reason === "unknown";
}

/** The guard's failure must not hide the outcome; an attempt that is never reported ends by itself. */
async function end(attempt: LoginTry, outcome: "failed" | "dropped"): Promise<void> {
  await Promise.resolve(attempt[outcome]()).catch(() => undefined);
}

function isCode(error: unknown, code: AppError["code"]): boolean {
  return error instanceof AppError && error.code === code;
}

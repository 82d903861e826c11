import { randomUUID } from "node:crypto";
import { createPointersOf, type PointerEntry } from "../identity/redis/document-pointers.ts";
import { tagOfDocument } from "../identity/redis/documents.ts";
import type { Log } from "../lib/log.ts";
import { type Redis, RedisUnavailableError, replyNumber } from "../lib/redis/redis.ts";
import { groupAccount } from "../quota/accounts.ts";
import type { LedgerFollower } from "../quota/memory/ledger-follower.ts";
import { chargeText } from "../quota/redis/account-calls.ts";
import { holdName } from "../quota/redis/hold-calls.ts";
import { fieldsOf } from "./account-fields.ts";
import { copyDocuments } from "./copy-state.ts";
import type { DocumentFolder } from "./document-folder.ts";
import { documentOf, type DocumentRecord, ledgerRecordOf, type LoggedRecord } from "./logged-records.ts";
import type { Loss } from "./mend.ts";

export interface RestoreOptions {
  readonly redis: Redis;
  readonly ledger: LedgerFollower;
  readonly documents: DocumentFolder;
  /** The newest records of all tags. */
  readonly recent: () => readonly LoggedRecord[];
  readonly log: Log;
}

/** Proves that this node may write. */
export interface Lead {
  readonly key: string;
  readonly node: string;
}

const callsAtOnce = 64;
/** How long the outcome of a request is remembered for calls that are repeated, in ms. */
const rememberMs = 3_600_000;

/** Writes what a tag has lost from this node's replica. Throws as Redis.call, and where this node no longer leads. */
export async function restoreTag(
  { tag, isTotal, isOld, records }: Loss,
  lead: Lead,
  options: RestoreOptions,
): Promise<void> {
  const { redis, ledger, documents, log } = options;
  const pointersOf = createPointersOf(redis);
  // All of it at one moment: what is counted later is not in it.
  const calls: (readonly [name: string, key: string, args: readonly (string | number)[]])[] = [];
  for (const [name, account] of ledger.accounts) {
    if (redis.tagOf(name) !== tag) continue;
    calls.push(["ledger_restore_account", redis.keyIn(tag, "acct", name), fieldsOf(account.counts)]);
    for (const [id, counts] of account.keys)
      calls.push(["ledger_restore_account", redis.keyIn(tag, "acctkey", `${name}/${id}`), fieldsOf(counts)]);
  }
  for (const record of [...options.recent(), ...records]) calls.push(...holdsOf(record, tag, redis));
  for (let at = 0; at < calls.length; at += callsAtOnce) {
    const some = calls.slice(at, at + callsAtOnce);
    const replies = some.map(([name, key, args]) => redis.call(name, [key, lead.key], [lead.node, ...args]));
    for (const reply of await Promise.all(replies)) if (replyNumber(reply) === 0) throw noLead(tag);
  }
  if (!isTotal && !isOld) {
    // Records only name what was lost: one that is remembered may be older than the folder.
    const lost = records.flatMap((record) => documentOf(record) ?? []);
    for (const { kind, name } of new Map(lost.map((document) => [pathOf(document), document])).values()) {
      const text = await documents.read({ kind, name });
      if (text !== undefined) await putDocument({ kind, name, text });
    }
    return;
  }
  const stored = new Map<string, DocumentRecord>();
  if (isOld) for await (const document of copyDocuments(redis, [tag])) stored.set(pathOf(document), document);
  for await (const document of documents.all()) {
    if (tagOfDocument(redis, document.kind, document.name) !== tag) continue;
    if (stored.get(pathOf(document))?.text !== document.text) await putDocument(document);
    stored.delete(pathOf(document));
  }
  // User files with a password in plain text are not in force, and do not mean that the user was removed.
  for (const name of await documents.plainUsers()) stored.delete(`users/${name}`);
  for (const { kind, name } of stored.values()) await putDocument({ kind, name, text: null });

  async function putDocument({ kind, name, text }: DocumentRecord): Promise<void> {
    for (const { key, user, lifeMs } of pointersIn({ kind, name, text }))
      await redis.send(key, ["SET", key, user, ...(lifeMs === undefined ? [] : ["PX", String(lifeMs)])]);
    const keys = [redis.keyIn(tag, "doc", `${kind}/${name}`), redis.keyIn(tag, "index", kind)] as const;
    const args = [randomUUID(), name, text === null ? "delete" : "put", text ?? ""];
    await redis.call("identity_restore", [...keys, redis.keyIn(tag, "rev", kind)], args);
  }

  /** What says whose the sessions or keys of a document are. */
  function pointersIn({ kind, name, text }: DocumentRecord): readonly PointerEntry[] {
    try {
      return text === null ? [] : pointersOf({ kind, name, text });
    } catch (error) {
      log.warn({ err: error, kind, name }, "a document cannot be read: its sessions or keys are not in force");
      return [];
    }
  }
}

function pathOf({ kind, name }: DocumentRecord): string {
  return `${kind}/${name}`;
}

/** What became of a reservation, in the accounts of a tag: a call that is repeated after the loss must find it. */
function holdsOf(
  record: LoggedRecord,
  tag: string,
  redis: Redis,
): readonly (readonly [string, string, readonly (string | number)[]])[] {
  if (record.kind === "adjust" || record.kind === "reset") return markOf(record, tag, redis);
  if (record.kind !== "charge" && record.kind !== "settle") return [];
  const request = ledgerRecordOf(record);
  // Records of the journal don't name it: these are older than any call that may be repeated.
  const { id } = JSON.parse(record.body) as { readonly id?: unknown };
  if ((request?.kind !== "charge" && request?.kind !== "settle") || typeof id !== "string") return [];
  const [first, final] = request.kind === "charge" ? [request.charge, ""] : [request.first, chargeText(request.final)];
  const args = [rememberMs, final === "" ? "committed" : "done", request.at, chargeText(first), final];
  const { user, group } = request;
  const names = [
    ...(redis.tagOf(user) === tag ? [holdName([id, user, "", ""])] : []),
    ...(group === undefined || redis.tagOf(groupAccount(group.name)) !== tag
      ? []
      : [holdName([id, groupAccount(group.name), "", user])]),
  ];
  return names.map((name) => ["ledger_restore_hold", redis.keyIn(tag, "hold", name), args]);
}

/** That a change by hand was made. */
function markOf({ seq, at: time, body }: LoggedRecord, tag: string, redis: Redis): ReturnType<typeof holdsOf> {
  const { id, user, at } = JSON.parse(body) as Readonly<Record<string, unknown>>;
  if (typeof id !== "string" || typeof user !== "string" || redis.tagOf(user) !== tag) return [];
  return [["ledger_restore_mark", redis.keyIn(tag, "hold", id), [rememberMs, seq, time, Number(at)]]];
}

function noLead(tag: string): RedisUnavailableError {
  return new RedisUnavailableError(`another process puts back what {${tag}} has lost`);
}

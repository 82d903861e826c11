import type { Redis } from "../lib/redis/redis.ts";
import type { LedgerFollower } from "../quota/memory/ledger-follower.ts";
import type { PeriodCounts, Window } from "../quota/memory/period-counts.ts";
import { fieldsOf } from "./account-fields.ts";
import { copyAccounts, copyDocuments } from "./copy-state.ts";
import type { DocumentFolder } from "./document-folder.ts";
import { pairsOf } from "./log-page.ts";

/**
 * Names each difference between the users folder and Redis, for the operator. Periods that are over, or in which nothing
 * was counted, are none. Throws as Redis.call.
 */
export async function* compareState(
  redis: Redis,
  ledger: Pick<LedgerFollower, "accounts">,
  documents: DocumentFolder,
): AsyncIterable<string> {
  const { accounts } = await copyAccounts(redis);
  for (const name of new Set([...ledger.accounts.keys(), ...accounts.keys()])) {
    const [here, there] = [ledger.accounts.get(name), accounts.get(name)];
    yield* differences(name, here?.counts, there?.windows);
    for (const id of new Set([...(here?.keys.keys() ?? []), ...(there?.keys.keys() ?? [])]))
      yield* differences(`${name}, API key ${id}`, here?.keys.get(id), there?.keys.get(id));
  }
  const texts = new Map<string, string>();
  for await (const { kind, name, text } of copyDocuments(redis)) texts.set(`${kind}/${name}`, text);
  for await (const { kind, name, text } of documents.all()) {
    const path = `${kind}/${name}`;
    const stored = texts.get(path);
    if (stored === undefined) yield `${path}: Redis does not have it`;
    else if (stored !== text) yield `${path}: Redis has another text`;
    texts.delete(path);
  }
  for (const name of await documents.plainUsers()) {
    texts.delete(`users/${name}`);
    yield `users/${name}: its password is in plain text, so it is not in force and stays in the users folder`;
  }
  for (const path of texts.keys()) yield `${path}: the users folder does not have it`;
}

function* differences(
  whose: string,
  here: Pick<PeriodCounts, "windows"> | undefined,
  there: readonly Window[] | undefined,
): Iterable<string> {
  const [ours, theirs] = [here?.windows ?? [], there ?? []].map((windows) => pairsOf(fieldsOf({ windows })));
  for (const field of new Set([...Object.keys(ours ?? {}), ...Object.keys(theirs ?? {})])) {
    const [inFolder = "0", inRedis = "0"] = [ours?.[field], theirs?.[field]];
    // The total is there, or not, for accounts without any use.
    if (inFolder !== inRedis && field !== "total:end")
      yield `${whose}, ${field}: ${inFolder} in the users folder, ${inRedis} in Redis`;
  }
}

import { openJournal, recoverJournal } from "../../lib/journal/journal.ts";
import {
  type ChargeRecord,
  decodeLedgerRecord,
  encodeLedgerRecord,
  type SettleRecord,
} from "../memory/charge-record.ts";

/** A request that was charged while Redis was away. */
export interface AwayCharge {
  /** That of its reservation: Redis knows by it whether it has the charge already. */
  readonly id: string;
  readonly charge: ChargeRecord;
  /** Undefined while the request runs, and for one whose process has died: then the first charge stands. */
  settle: SettleRecord | undefined;
}

/**
 * The charges of this folder that Redis does not have yet, on disk. Each line is the id of a reservation, and a record
 * as the ledger's journal has it, or `done` once Redis has it all.
 */
export interface AwayJournal {
  /** Those of earlier runs, oldest first. */
  readonly found: readonly AwayCharge[];
  /** Resolves once it is on disk; rejects if it is not there. */
  add(id: string, record: ChargeRecord | SettleRecord): Promise<void>;
  /** Redis has it. It is not read again. */
  done(id: string): void;
  /** Removes the files: all charges are in Redis. */
  clear(): Promise<void>;
  close(): Promise<void>;
}

const segmentBytes = 256 * 1024;

/** Opens the journal in a folder. Throws JournalDamage if its files cannot be trusted. */
export async function openAwayJournal(folder: string, syncIntervalMs: number): Promise<AwayJournal> {
  const found = new Map<string, AwayCharge>();
  const content = await recoverJournal(folder, (_seq, payload) => {
    const [id, rest] = splitOnce(payload);
    if (rest === "done") {
      found.delete(id);
      return;
    }
    const record = decodeLedgerRecord(rest);
    const known = found.get(id);
    if (record?.kind === "charge") found.set(id, { id, charge: record, settle: undefined });
    else if (record?.kind === "settle" && known !== undefined) known.settle = record;
    // A settlement without its charge is that of one that is done.
    else if (record?.kind !== "settle") throw new Error("expected a charge or a settlement");
  });
  const journal = openJournal({ folder, content, segmentBytes, syncIntervalMs });
  return {
    found: [...found.values()],
    add: (id, record) => journal.synced(journal.append(`${id} ${encodeLedgerRecord(record)}`)),
    done(id) {
      journal.append(`${id} done`);
    },
    clear: () => journal.dropThrough(journal.lastSeq()),
    close: () => journal.close(),
  };
}

function splitOnce(text: string): readonly [string, string] {
  const at = text.indexOf(" ");
  return [text.slice(0, at), text.slice(at + 1)];
}

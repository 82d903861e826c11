import { AppError } from "../../errors.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Journal } from "../../lib/journal/journal.ts";
import { JournalError } from "../../lib/journal/journal-segment.ts";
import { probeRecord } from "./charge-record.ts";

/** How often to probe a journal that refused a record. */
const probeIntervalMs = 1000;

/** The journal as the ledger uses it: nothing billable may start that could not be charged. */
export interface JournalGate {
  /** Throws AppError storage_unavailable while records are refused. */
  check(): void;
  /** Appends a record. Throws AppError storage_unavailable, and then the record is not in the journal. */
  record(payload: string): number;
  /** Resolves when a record is on disk; rejects with AppError storage_unavailable if that is unknown. */
  synced(seq: number): Promise<void>;
  health(): { readonly ok: boolean; readonly reason?: string };
}

/**
 * After a refused record (most likely a full disk) no new work starts until a probe has been written, tried at most
 * once a second; work already started may continue trying. After a failed sync it waits until the journal is repaired.
 */
export function createJournalGate(journal: Journal, clock: Clock): JournalGate {
  let refusal: JournalError | undefined;
  let probeAt = 0;

  function record(payload: string): number {
    try {
      const seq = journal.append(payload);
      refusal = undefined;
      return seq;
    } catch (cause) {
      // Any other error concerns this record and says nothing about the journal.
      if (!(cause instanceof JournalError)) throw cause;
      // A final error ends with the repair of the journal; a probe would be useless.
      refusal = cause.final ? undefined : cause;
      probeAt = clock.monotonic() + probeIntervalMs;
      throw unavailable(cause);
    }
  }

  return {
    check() {
      const failure = journal.failure();
      if (failure !== undefined) throw unavailable(failure);
      if (refusal === undefined) return;
      if (clock.monotonic() < probeAt) throw unavailable(refusal);
      record(probeRecord);
    },
    record,
    async synced(seq) {
      try {
        await journal.synced(seq);
      } catch (cause) {
        throw unavailable(cause);
      }
    },
    health() {
      const problem = journal.failure() ?? refusal;
      if (problem === undefined) return { ok: true };
      return { ok: false, reason: problem.message };
    },
  };
}

function unavailable(cause: unknown): AppError {
  return new AppError("storage_unavailable", { cause, retryAfterSeconds: 1 });
}

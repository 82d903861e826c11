import { rm } from "node:fs/promises";
import { join } from "node:path";
import { openMemoryLedger, type MemoryLedgerOptions } from "./memory-ledger.ts";
import { totalsPath, usageDir } from "./snapshot-format.ts";
import { totalsName } from "../usage/usage-totals.ts";

/**
 * Resets periods that begin in the future, as MemoryLedger.bringBack does, and recomputes the usage totals, since days
 * have moved in them. If interrupted at any point, it can be run again.
 *
 * @param user absent: all users
 * @returns the affected users
 */
export async function bringBackQuotas(options: MemoryLedgerOptions, user?: string): Promise<readonly string[]> {
  const moved = await withLedger(options, (ledger) => ledger.bringBack(user));
  if (moved.length === 0) return moved;
  await rm(totalsPath(options.usersDir), { force: true });
  await rm(join(usageDir(options.usersDir), `${totalsName}.jsonl`), { force: true });
  // A start without totals computes them, and closing writes them.
  await withLedger(options, () => Promise.resolve());
  return moved;
}

async function withLedger<Result>(
  options: MemoryLedgerOptions,
  work: (ledger: Awaited<ReturnType<typeof openMemoryLedger>>) => Promise<Result>,
): Promise<Result> {
  const ledger = await openMemoryLedger(options);
  try {
    return await work(ledger);
  } finally {
    await ledger.close();
  }
}

import { onTestFinished } from "vitest";
import { openSpool, type Spool, type SpoolOptions } from "../../src/events/spool/spool.ts";
import type { LossReason } from "../../src/events/spool/spool-segment.ts";
import type { SpoolReader } from "../../src/events/spool/spool-reader.ts";
import { createCapturedLog } from "./captured-log.ts";
import { createManualClock } from "./manual-clock.ts";

export interface TestSpool extends Spool {
  /** The reader "a", the first one. */
  readonly a: SpoolReader;
  readonly log: ReturnType<typeof createCapturedLog>;
  /** Losses as "READER REASON COUNT". */
  readonly losses: readonly string[];
}

/** Opens a spool on a quick disk in `folder` for the readers "a" and "b", or others; closed at the end of the test. */
export async function openTestSpool(folder: string, options: Partial<SpoolOptions> = {}): Promise<TestSpool> {
  const losses: string[] = [];
  const log = createCapturedLog();
  const spool = await openSpool({
    folder,
    maxBytes: 1 << 20,
    segmentBytes: 1 << 18,
    readers: ["a", "b"],
    clock: createManualClock(),
    log,
    onLoss: (reader: string, reason: LossReason, count: number) => losses.push(`${reader} ${reason} ${count}`),
    ...options,
  });
  onTestFinished(() => spool.close());
  return { ...spool, a: spool.reader("a"), log, losses };
}

/** Reads and acknowledges everything that there is. */
export async function drain(reader: SpoolReader): Promise<string[]> {
  const texts: string[] = [];
  for (;;) {
    const records = await reader.read();
    const last = records.at(-1);
    if (last === undefined) return texts;
    texts.push(...records.map(({ text }) => text));
    reader.acknowledge(last.seq);
  }
}

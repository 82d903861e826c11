import { readFile } from "node:fs/promises";
import { daysBetween } from "../dates.ts";
import type { Log } from "../log.ts";
import { writeFileAtomic } from "./atomic-file.ts";

/** Remembers what day it was, so that a clock that is ahead for a while deletes nothing. */
export interface DayWitness {
  /**
   * Whether files may be removed by this date: it follows on the days that were seen before. Notes it where that can
   * be written: on a full disk old files should go all the more.
   * @param today YYYY-MM-DD, by the clock
   */
  believes(today: string): Promise<boolean>;
}

export interface DayWitnessOptions {
  /** Where the days are kept: in the folder that is pruned. */
  readonly file: string;
  /** The newest date among the files that would be pruned, for the first time; undefined where there are none. */
  readonly newestDay: () => Promise<string | undefined>;
  /** Days after that date for which it still counts as agreeing with the clock. */
  readonly firstGapDays: number;
  readonly log: Log;
}

/** Days that may pass without a look: a long weekend, or a holiday of the machine's. */
const gapDays = 7;
/** On so many days a date beyond that has to come up before it is believed. */
const neededDays = 7;

interface Seen {
  /** The last day that was believed. */
  readonly day: string;
  /** Days far after it, which may be a clock that is wrong. */
  readonly doubted: readonly string[];
}

export function createDayWitness({ file, newestDay, firstGapDays, log }: DayWitnessOptions): DayWitness {
  async function save(seen: Seen): Promise<void> {
    await writeFileAtomic(file, `${JSON.stringify(seen)}\n`, { syncFolder: false }).catch(() => undefined);
  }

  return {
    async believes(today) {
      const seen = parseSeen(await readFile(file, "utf8").catch(() => ""));
      const last = seen?.day ?? (await newestDay()) ?? today;
      const gap = daysBetween(last, today);
      const doubted = [...new Set([...(seen?.doubted ?? []), today])];
      // An earlier date than before removes less, whichever of the two is right.
      if (gap <= (seen === undefined ? firstGapDays : gapDays) || doubted.length > neededDays) {
        await save({ day: today, doubted: [] });
        return true;
      }
      await save({ day: last, doubted });
      log.warn(
        { event: "date_doubted", file, last_seen: last, today },
        "the date is far after the last one: old files are kept until it has come up on some more days",
      );
      return false;
    },
  };
}

/** undefined where there is nothing that can be used. */
function parseSeen(text: string): Seen | undefined {
  try {
    const { day, doubted } = JSON.parse(text) as Partial<Seen>;
    if (!isDay(day) || !Array.isArray(doubted)) return undefined;
    return { day, doubted: doubted.filter(isDay).slice(-neededDays) };
  } catch {
    return undefined;
  }
}

function isDay(value: unknown): value is string {
  return typeof value === "string" && /^\d{4}-\d{2}-\d{2}$/.test(value) && !Number.isNaN(Date.parse(value));
}

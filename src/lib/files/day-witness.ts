import { readFile } from "node:fs/promises";
import { daysBetween } from "../dates.ts";
import type { Log } from "../log.ts";
import { writeFileAtomic } from "./atomic-file.ts";

/** Remembers the latest trusted date, so that a clock that is ahead for a while deletes nothing. */
export interface DayWitness {
  /**
   * Whether files may be removed by this date: it plausibly follows the dates seen before. Records it if possible: on a
   * full disk, removing old files is all the more important.
   * @param today YYYY-MM-DD, by the clock
   */
  believes(today: string): Promise<boolean>;
}

export interface DayWitnessOptions {
  /** The file for the dates: in the folder that is pruned. */
  readonly file: string;
  /** The newest date among the files to prune, for the first call; undefined if there are none. */
  readonly newestDay: () => Promise<string | undefined>;
  /** Maximum days after that date for the clock to count as plausible. */
  readonly firstGapDays: number;
  readonly log: Log;
}

/** Days that may pass without a call: a long weekend, or a machine that is switched off for a while. */
const gapDays = 7;
/** A date beyond that is trusted after it has come up on so many days. */
const neededDays = 7;

interface Seen {
  /** The latest trusted day. */
  readonly day: string;
  /** Days far after it, perhaps from a wrong clock. */
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
        "the date is far ahead of the last one: old files are kept until it is confirmed on further days",
      );
      return false;
    },
  };
}

/** undefined if the text can't be used. */
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

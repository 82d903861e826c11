import { configSchema } from "../../src/config/schema.ts";
import type { ChatFinished, ProxyEvent } from "../../src/events/catalogue.ts";
import { createRisk } from "../../src/risk/risk.ts";
import { chatFinished } from "../support/events.ts";
import { createManualClock } from "../support/manual-clock.ts";

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;
/** A Monday. */
const beginning = Date.UTC(2026, 0, 5);
const days = 14;

/** A number in [0, 1), the same ones for the same seed (mulberry32). */
type Random = () => number;

function createRandom(seed: number): Random {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** One request: when in its day, in ms, and what is unusual about it. */
type Request = readonly [at: number, changes: Partial<ChatFinished>];

/** What a user does in a day. */
interface Behaviour {
  readonly name: string;
  readonly what: string;
  readonly day: (day: number, random: Random) => readonly Request[];
}

const abandoned = { outcome: "client_gone", code: "client_gone", status: 0, firstEventMs: null, outputTokens: 0 };
const invalid = { outcome: "refused", code: "invalid_request", status: 400, firstEventMs: null, outputTokens: 0 };
const limited = {
  outcome: "refused",
  code: "rate_limited",
  refusedBy: "per_user",
  status: 429,
  firstEventMs: null,
  outputTokens: 0,
};

/** So many requests at random times between two hours. */
function spread(
  count: number,
  from: number,
  to: number,
  random: Random,
  changes: () => Partial<ChatFinished> = () => ({}),
) {
  return Array.from({ length: count }, (): Request => [(from + random() * (to - from)) * hourMs, changes()]);
}

const atWork = (random: Random): readonly Request[] => spread(40, 9, 17, random);

/** Ten types of users, all with new accounts. */
const behaviours: readonly Behaviour[] = [
  { name: "steady", what: "40 requests a day at work", day: (_day, random) => atWork(random) },
  { name: "light", what: "2 requests a day", day: (_day, random) => spread(2, 8, 22, random) },
  {
    name: "bursty",
    what: "80 requests within a minute, three times a day",
    day: (_day, random) => [9, 13, 16].flatMap((hour) => spread(80, hour, hour + 1 / 60, random)),
  },
  {
    name: "night-job",
    what: "200 requests each night between 2 and 3",
    day: (_day, random) => spread(200, 2, 3, random),
  },
  {
    name: "scraper",
    what: "2,000 requests around the clock, most of them over a limit",
    day: (_day, random) => spread(2000, 0, 24, random, () => (random() < 0.8 ? limited : {})),
  },
  {
    name: "shared-key",
    what: "a key that 15 networks use with 6 programs",
    day: (_day, random) =>
      spread(300, 0, 24, random, () => ({
        ip: `198.51.${Math.floor(random() * 15)}.7`,
        client: `program-${Math.floor(random() * 6)}`,
      })),
  },
  {
    name: "aborter",
    what: "leaves before the first event in 7 of 10 requests",
    day: (_day, random) => spread(100, 8, 20, random, () => (random() < 0.7 ? abandoned : {})),
  },
  {
    name: "broken-client",
    what: "a program that sends 500 requests a day, nearly all invalid",
    day: (_day, random) => spread(500, 0, 24, random, () => (random() < 0.95 ? invalid : {})),
  },
  {
    name: "stolen-key",
    what: "as steady; from the tenth day on at night as well, from 12 networks, with 20 times the tokens",
    day: (day, random) => [
      ...atWork(random),
      ...(day < 9
        ? []
        : spread(200, 1, 5, random, () => ({
            ip: `203.0.${Math.floor(random() * 12)}.9`,
            inputTokens: 4_000,
            outputTokens: 2_000,
          }))),
    ],
  },
  {
    name: "reformed",
    what: "as the aborter for three days, then as steady",
    day: (day, random) =>
      day < 3 ? spread(100, 8, 20, random, () => (random() < 0.7 ? abandoned : {})) : atWork(random),
  },
];

/** A user's fortnight: the moves, and the step at its end. */
export interface Fortnight {
  readonly name: string;
  readonly what: string;
  readonly moves: readonly (ProxyEvent & { readonly type: "trust.changed" })[];
  readonly last: string;
}

/** Lets all of them live for a fortnight under the default rules. */
export function simulateFortnight(seed: number): readonly Fortnight[] {
  const { risk: config } = configSchema.parse({ risk: { enabled: true } });
  return behaviours.map(({ name, what, day }, index) => {
    const random = createRandom(seed + index);
    const clock = createManualClock(beginning);
    const moves: Fortnight["moves"][number][] = [];
    const risk = createRisk({
      config,
      clock,
      ownRules: new Set(["per_user"]),
      emit: (event) => {
        if (event.type === "trust.changed") moves.push(event);
      },
    });
    const account = { username: name, created_at: new Date(beginning) };
    for (let date = 0; date < days; date++) {
      const requests = [...day(date, random)].sort(([a], [b]) => a - b);
      for (const [ms, changes] of requests) {
        const at = Math.floor(beginning + date * dayMs + ms);
        clock.advance(at - clock.now());
        risk.trustOf(account);
        risk.sink(chatFinished({ at, user: name, inputTokens: 400, outputTokens: 200, ...changes }));
      }
    }
    return { name, what, moves, last: risk.trustOf(account).step };
  });
}

/** The table of docs/trust.md. */
export function fortnightTable(users: readonly Fortnight[]): string {
  const rows = users.map(({ name, what, moves, last }) => [name, what, moves.map(sayMove).join("; ") || "none", last]);
  const table = [["user", "what they do", "moves", "at the end"], ...rows];
  const widths = [0, 1, 2, 3].map((column) => Math.max(...table.map((row) => (row[column] ?? "").length)));
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(" | ")} |`;
  const [head = [], ...body] = table;
  return [line(head), `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`, ...body.map(line)].join("\n");
}

function sayMove({ at, to, score, reasons: [reason = ""], direction }: Fortnight["moves"][number]): string {
  const day = Math.floor((at - beginning) / dayMs) + 1;
  const time = new Date(at).toISOString().slice(11, 16);
  return `day ${day}, ${time}: ${direction} to ${to}${direction === "down" ? ` (${score} points; ${reason})` : ""}`;
}

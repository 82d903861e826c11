import { z } from "zod";
import { maxClientLength, maxIpLength, type Session, type SpentSecret } from "./session.ts";

const digest = z.string().length(43);

const spentRow = z.strictObject({ hash: digest, salt: digest, at: z.date() });

/** The schema of a session in its file. */
export const sessionRow = z.strictObject({
  id: z.string().min(1).max(64),
  family: digest,
  current: digest,
  version: z.int().min(0),
  created_at: z.date(),
  used_at: z.date(),
  ip: z.string().max(maxIpLength),
  client: z.string().max(maxClientLength),
  spent: z.array(spentRow).default([]),
  /** Absent as well in sessions from before it was recorded. */
  cookie: z.boolean().default(false),
});

type SessionRow = z.output<typeof sessionRow>;

/** The time of a restart on both clocks. */
interface LoadTime {
  /** ms since the epoch. */
  readonly now: number;
  /** Monotonic ms. */
  readonly monotonic: number;
  readonly leewayMs: number;
}

/**
 * An exchange this recent before a start gets a new leeway, in ms. The proxy may have crashed between writing the
 * exchange and responding, and the client can only retry when the proxy is back: without this a legitimate client would
 * be taken for a thief.
 */
export const lostResponseMs = 600_000;

/** Converts a session to its row in the file. */
export function toRow({
  id,
  family,
  current,
  version,
  ip,
  client,
  isCookie,
  ...session
}: Session): z.input<typeof sessionRow> {
  const { createdAt, usedAt, spent } = session;
  return {
    id,
    family,
    current,
    version,
    created_at: new Date(createdAt),
    used_at: new Date(usedAt),
    ip,
    client,
    spent: spent.map(({ hash, salt, at }) => ({ hash, salt, at: new Date(at) })),
    ...(isCookie ? { cookie: true } : {}),
  };
}

/** Restores a session from its row. */
export function fromRow(user: string, row: SessionRow, time: LoadTime): Session {
  const { created_at, used_at, spent, cookie: isCookie, ...rest } = row;
  const toSpent = ({ at, ...secret }: z.output<typeof spentRow>): SpentSecret => {
    const isRecent = time.now - at.getTime() < lostResponseMs;
    return { ...secret, at: at.getTime(), until: isRecent ? time.monotonic + time.leewayMs : -Infinity };
  };
  const times = { createdAt: created_at.getTime(), usedAt: used_at.getTime() };
  return { ...rest, ...times, user, isCookie, spent: spent.map(toSpent) };
}

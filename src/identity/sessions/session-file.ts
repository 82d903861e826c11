import { z } from "zod";
import type { Session, SpentSecret } from "./session.ts";

const digest = z.string().length(43);

const spentRow = z.strictObject({ hash: digest, salt: digest, at: z.date() });

/** What is kept of an address and of a program's name. */
export const maxIpLength = 64;
export const maxClientLength = 200;

/** The schema of a session as its file has it. */
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
});

type SessionRow = z.output<typeof sessionRow>;

/** Where a restart stands in time. */
interface LoadTime {
  /** ms since the epoch. */
  readonly now: number;
  /** Monotonic ms. */
  readonly monotonic: number;
  readonly leewayMs: number;
}

/**
 * How long before a start an exchange may lie for its leeway to begin anew, in ms. The proxy may have died between
 * writing the exchange down and answering it, and the client can only come again when the proxy is back: without this
 * an honest client would be taken for a thief.
 */
const lostResponseMs = 600_000;

/** A session as its row in the file. */
export function toRow({ id, family, current, version, ip, client, ...session }: Session): z.input<typeof sessionRow> {
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
  };
}

/** A session as it was before the restart. */
export function fromRow(user: string, row: SessionRow, time: LoadTime): Session {
  const { created_at, used_at, spent, ...rest } = row;
  const toSpent = ({ at, ...secret }: z.output<typeof spentRow>): SpentSecret => {
    const isRecent = time.now - at.getTime() < lostResponseMs;
    return { ...secret, at: at.getTime(), until: isRecent ? time.monotonic + time.leewayMs : -Infinity };
  };
  return { ...rest, user, createdAt: created_at.getTime(), usedAt: used_at.getTime(), spent: spent.map(toSpent) };
}

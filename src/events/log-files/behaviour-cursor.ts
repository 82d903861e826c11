import { AppError } from "../../errors.ts";

/** Where a page of a user's behaviour log ended. */
export interface BehaviourPosition {
  /** YYYY-MM-DD of the file. */
  readonly day: string;
  /** Part of the day's log. */
  readonly part: number;
  /** Byte at which the last line that was read begins; files only grow, so it stays valid. */
  readonly offset: number;
}

const pattern = /^([a-z0-9_-]{1,32}) (\d{4}-\d{2}-\d{2}) (\d{1,9}) (\d{1,15})$/;

/** The position as text for a client, which may not rely on what is in it. */
export function encodeCursor(user: string, { day, part, offset }: BehaviourPosition): string {
  return Buffer.from(`${user} ${day} ${part} ${offset}`).toString("base64url");
}

/** @throws AppError `invalid_request` (param "cursor") for what is no cursor, or one of another user's log */
export function decodeCursor(user: string, cursor: string): BehaviourPosition {
  const [, owner, day, part, offset] = pattern.exec(Buffer.from(cursor, "base64url").toString("latin1")) ?? [];
  if (owner !== user || day === undefined) {
    throw new AppError("invalid_request", { param: "cursor", message: "This is no cursor of this log." });
  }
  return { day, part: Number(part), offset: Number(offset) };
}

// The files of a proxy that has been running for long: many users, and one of them with a very long log.
import { mkdirSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { createPasswords } from "../dist/identity/passwords/password.js";
import { behaviourFileName } from "../dist/events/log-files/behaviour-files.js";

const password = "a password for the benchmark only";
/** What the proxy itself writes into one file. */
const fileBytes = 64 << 20;
const blockBytes = 1 << 20;

/** Writes `count` users, user-0 and so on, and the administrator boss. Returns the password of all. */
export async function writeUsers(usersDir, count) {
  const passwords = await createPasswords({ maxHashes: 1, maxWaiting: 1 });
  const hash = await passwords.hash(password);
  const write = (name, rest) => {
    const text = `username = "${name}"\npassword_hash = "${hash}"\nquota_tier = "bench"\n${rest}`;
    writeFileSync(join(usersDir, `${name}.toml`), text, { mode: 0o600 });
  };
  write("boss", 'roles = ["admin"]\n');
  for (let index = 0; index < count; index++) write(`user-${index}`, 'metadata = { team = "bench" }\n');
  return password;
}

/** What the log says of every chat besides whose it was. */
export const finishedChat = {
  stream: true,
  outcome: "completed",
  code: "ok",
  status: 200,
  requests: 1,
  input_tokens: 1200,
  cached_tokens: 1024,
  output_tokens: 345,
  reasoning_tokens: 0,
  cost_nano: 1_234_000,
  currency: "CNY",
  estimated: false,
  first_event_ms: 312.5,
  generation_ms: 8123.4,
  duration_ms: 8436.1,
  retries: 0,
};

/**
 * Writes a log of about so many bytes: one block of lines over and over, with rising times up to now. Returns a moment
 * in its middle, and a type of which it has one event, the oldest.
 */
export async function writeLog(folder, bytes) {
  mkdirSync(folder, { recursive: true });
  const [block, starts] = makeBlock();
  const blocks = Math.max(1, Math.round(bytes / blockBytes));
  const perFile = Math.floor(fileBytes / blockBytes);
  const stepMs = Math.max(1, Math.floor((6 * 3_600_000) / (blocks * starts.length)));
  const endMs = Date.now() - 60_000;
  let at = endMs - blocks * starts.length * stepMs;
  const middle = new Date((at + endMs) / 2).toISOString();
  const day = new Date().toISOString().slice(0, 10);
  for (let part = 0; part * perFile < blocks; part++) {
    const file = await open(join(folder, behaviourFileName(day, part)), "w", 0o600);
    if (part === 0) await file.write(`{"ts":"${new Date(at).toISOString()}","event":"password.changed"}\n`);
    for (let index = part * perFile; index < Math.min(blocks, (part + 1) * perFile); index++) {
      for (const start of starts) {
        block.write(new Date(at).toISOString(), start + '{"ts":"'.length, "latin1");
        at += stepMs;
      }
      await file.write(block);
    }
    await file.close();
  }
  return { middle, rare: "password.changed" };
}

/** A block of lines as chats leave them, and where each line begins. */
function makeBlock() {
  const facts = {
    event: "chat.finished",
    trace_id: "0123456789abcdef0123456789abcdef",
    ip: "203.0.113.7",
    user: "user-0",
    model: "deepseek-flash",
    provider: "bench",
    ...finishedChat,
  };
  const line = `{"ts":"2026-01-01T00:00:00.000Z",${JSON.stringify(facts).slice(1)}\n`;
  const count = Math.floor(blockBytes / line.length);
  return [Buffer.from(line.repeat(count)), Array.from({ length: count }, (_, index) => index * line.length)];
}

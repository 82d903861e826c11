// The files of a proxy with many users that has served many requests: what the panel's pages read.
import { createWriteStream, mkdirSync, writeFileSync } from "node:fs";
import { once } from "node:events";
import { join } from "node:path";
import { behaviourFileName } from "../dist/events/log-files/behaviour-files.js";
import { encodeHeader, encodeRecord, maxRecordBytes } from "../dist/lib/journal/journal-format.js";
import { encodeLedgerRecord } from "../dist/quota/memory/charge-record.js";
import { finishedChat } from "./admin-files.mjs";

export const models = ["deepseek-chat", "deepseek-reasoner", "glm-large", "qwen-large", "kimi-large"];
export const providers = ["bench", "second", "third"];
const groupCount = 20;
const dayMs = 86_400_000;
const days = 30;
const fileBytes = 64 << 20;

/** The sections of config.toml that name the groups, each with its share of all users. */
export function groupSections(users) {
  const sections = Array.from({ length: groupCount }, (_, group) => {
    const members = [];
    for (let user = group; user < users; user += groupCount) members.push(`"user-${user}"`);
    return `[groups.team-${group}]\nmembers = [${members.join(", ")}]\n`;
  });
  return sections.join("\n");
}

/**
 * Writes `requests` requests of the last 30 days: into the journal, from which the usage is counted, and into the log of
 * all requests. Few users make most of them. Then `changes` lines of the audit log.
 */
export async function writePast({ dir, users, requests, changes }) {
  const random = createRandom(1);
  const endMs = Date.now() - 60_000;
  const startMs = endMs - days * dayMs;
  const stepMs = (days * dayMs) / requests;
  const journal = createJournalFiles(join(dir, "users", "journal"));
  const log = createLogFiles(join(dir, "logs", "requests", "users", "all"));
  for (let index = 0; index < requests; index++) {
    const at = Math.floor(startMs + index * stepMs);
    const number = Math.floor(users * random() ** 3);
    const user = `user-${number}`;
    const group = `team-${number % groupCount}`;
    const model = models[Math.floor(models.length * random() ** 2)];
    const provider = providers[Math.floor(providers.length * random() ** 2)];
    const requestId = `0123456789abcdef${index.toString(16).padStart(16, "0")}`;
    const final = { requests: 1, tokens: 1545, cost: 1_234_000, currency: "CNY" };
    const common = {
      at,
      user,
      requestId,
      model,
      provider,
      apiKey: `key${number}`,
      group: { name: group, at },
      price: "p1",
      first: final,
      final,
      charge: final,
      settledAt: at + 8436,
      usage: { input: 1200, cached: 1024, output: 345, reasoning: 0 },
      outcome: "completed",
      estimated: false,
    };
    await journal.write(encodeLedgerRecord({ kind: "charge", ...common }));
    await journal.write(encodeLedgerRecord({ kind: "settle", ...common }));
    await log.write(at, {
      event: "chat.finished",
      trace_id: requestId,
      ip: "203.0.113.7",
      user,
      group,
      key_id: `key${number}`,
      model,
      provider,
      ...finishedChat,
    });
  }
  await journal.close();
  await log.close();
  const audit = createLogFiles(join(dir, "logs", "audit"));
  for (let index = 0; index < changes; index++) {
    const user = `user-${Math.floor(users * random())}`;
    const facts = {
      event: "admin.changed",
      trace_id: "t",
      ip: "203.0.113.9",
      by: "boss",
      action: "quota.granted",
      user,
    };
    await audit.write(Math.floor(startMs + (index * days * dayMs) / changes), { ...facts, reason: "a workshop" });
  }
  await audit.close();
}

/** The same numbers in each run. */
function createRandom(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

function createJournalFiles(folder) {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const record = Buffer.alloc(maxRecordBytes);
  const out = createWriter();
  let seq = 0;
  return {
    async write(payload) {
      seq++;
      if (out.bytes() === 0 || out.bytes() >= fileBytes) {
        await out.open(join(folder, `${String(seq).padStart(16, "0")}.journal`));
        await out.write(Buffer.from(encodeHeader({ first: seq, previous: seq - 1 })));
      }
      const length = encodeRecord(record, seq, payload);
      await out.write(Buffer.from(record.subarray(0, length)));
    },
    close: () => out.close(),
  };
}

function createLogFiles(folder) {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const out = createWriter();
  let day = "";
  return {
    async write(at, facts) {
      const ts = new Date(at).toISOString();
      if (ts.slice(0, 10) !== day) {
        day = ts.slice(0, 10);
        await out.open(join(folder, behaviourFileName(day, 0)));
      }
      await out.write(Buffer.from(`{"ts":"${ts}",${JSON.stringify(facts).slice(1)}\n`));
    },
    close: () => out.close(),
  };
}

/** Writes one file after another, in pieces of a megabyte. */
function createWriter() {
  let stream;
  let pieces = [];
  let waiting = 0;
  let total = 0;
  const flush = async () => {
    if (pieces.length > 0 && !stream.write(Buffer.concat(pieces))) await once(stream, "drain");
    pieces = [];
    waiting = 0;
  };
  const close = async () => {
    if (stream === undefined) return;
    await flush();
    stream.end();
    await once(stream, "finish");
    stream = undefined;
  };
  return {
    bytes: () => total,
    async open(path) {
      await close();
      writeFileSync(path, "", { mode: 0o600 });
      stream = createWriteStream(path, { flags: "a" });
      total = 0;
    },
    async write(bytes) {
      pieces.push(bytes);
      waiting += bytes.length;
      total += bytes.length;
      if (waiting >= 1 << 20) await flush();
    },
    close,
  };
}

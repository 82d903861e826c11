import { ErrorReply } from "@redis/client";
import { type Redis, type RedisReply, RedisReplyError, replyNumber, replyText } from "./redis.ts";

/** What is required of the servers. */
export interface ServerNeeds {
  /** Whether a charge must survive a crash of Redis before it counts as made. */
  readonly strict: boolean;
  /** Replicas that must have such a charge. */
  readonly minReplicas: number;
  /** Wall clock, ms since the epoch. */
  readonly now: () => number;
}

/** What a start finds. */
export interface ServerFindings {
  /** Each makes the start fail. */
  readonly errors: readonly string[];
  readonly warnings: readonly string[];
}

/** The layout of the keys. A proxy that knows another one must not touch them. */
const layout = "2";
/** Clocks this far apart, in ms, are worth a word. */
const skewMs = 1000;

/** Looks at the settings of every primary. Throws RedisUnavailableError. */
export async function checkServer(redis: Redis, needs: ServerNeeds): Promise<ServerFindings> {
  const errors = new Set<string>();
  const warnings = new Set<string>();
  for (const reply of await redis.onEveryServer(["CONFIG", "GET", "*"])) {
    if (reply instanceof Error) {
      warnings.add(
        `its settings cannot be read (${reply.message}): see docs/many-nodes.md for those that it must have`,
      );
      continue;
    }
    checkSettings(settingsOf(reply), needs, errors, warnings);
  }
  await checkLayout(redis, errors);
  const apart = Math.abs(replyNumber(await redis.call("now", [redis.keyIn("00", "layout")], [])) - needs.now());
  if (apart > skewMs) {
    warnings.add(
      `its clock and this machine's are ${Math.round(apart / 1000)} s apart: quotas follow the clock of Redis, tokens this one`,
    );
  }
  return { errors: [...errors], warnings: [...warnings] };
}

function checkSettings(
  settings: ReadonlyMap<string, string>,
  { strict, minReplicas }: ServerNeeds,
  errors: Set<string>,
  warnings: Set<string>,
): void {
  const setting = (name: string): string => settings.get(name) ?? "";
  const policy = setting("maxmemory-policy");
  if (policy !== "" && policy !== "noeviction") {
    errors.add(
      `maxmemory-policy is ${policy}, which removes quotas and sessions when memory is short: set it to noeviction`,
    );
  }
  const appendOnly = setting("appendonly");
  const sync = setting("appendfsync");
  const replicas = Number(setting("min-replicas-to-write"));
  if (strict) {
    if (appendOnly === "no") {
      errors.add(
        'appendonly is no, but storage.durability is "strict": set appendonly to yes and appendfsync to always',
      );
    } else if (sync !== "" && sync !== "always" && minReplicas === 0) {
      errors.add(
        `appendfsync is ${sync}, but storage.durability is "strict": set it to always, or let replicas have each charge with state.min_replicas`,
      );
    }
    if (minReplicas > 0 && replicas < minReplicas) {
      errors.add(
        `min-replicas-to-write is ${replicas}, but state.min_replicas is ${minReplicas}: set it to at least that, with min-replicas-max-lag`,
      );
    }
  } else if (appendOnly === "no") {
    warnings.add(
      "appendonly is no: after a restart of Redis everything is restored from the users folders of the proxies; set it to yes to keep it in Redis",
    );
  } else if (sync === "no") {
    warnings.add("appendfsync is no: a crash of its machine may lose up to 30 s; set it to everysec or always");
  }
}

/** A map in RESP3, a flat list in RESP2. */
function settingsOf(reply: RedisReply): ReadonlyMap<string, string> {
  if (Array.isArray(reply)) {
    const texts = reply.map((one: RedisReply) => replyText(one));
    return new Map(texts.flatMap((name, index) => (index % 2 === 0 ? [[name, texts[index + 1] ?? ""] as const] : [])));
  }
  return new Map(Object.entries(reply ?? {}).map(([name, value]) => [name, String(value)]));
}

async function checkLayout(redis: Redis, errors: Set<string>): Promise<void> {
  const key = redis.keyIn("00", "layout");
  const foreign = `the key ${key} belongs to something else: choose another state.key_prefix`;
  try {
    await redis.send(key, ["SET", key, layout, "NX"]);
    const found = replyText(await redis.send(key, ["GET", key]));
    if (found === layout) return;
    const isLayout = /^\d{1,9}$/.test(found);
    const known = `(layout ${found}, this one knows ${layout})`;
    errors.add(
      !isLayout
        ? foreign
        : Number(found) > Number(layout)
          ? `a newer proxy has written its keys ${known}: update this one`
          : `an older proxy has written its keys ${known}: export the state with it (npm run state -- export), and import it with this one under another state.key_prefix`,
    );
  } catch (error) {
    if (!(error instanceof RedisReplyError)) throw error;
    errors.add(error.cause instanceof ErrorReply && error.message.startsWith("WRONGTYPE") ? foreign : error.message);
  }
}

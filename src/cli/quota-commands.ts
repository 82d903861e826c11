import type { z } from "zod";
import type { QuotaAdmin } from "../admin/quota-admin.ts";
import { adjustRequest, grantRequest, resetRequest } from "../admin/quota-requests.ts";
import { plainIssue } from "../lib/plain-issue.ts";
import { LockedError } from "../lib/files/lock-file.ts";
import type { BucketState, QuotaLimit } from "../quota/ledger.ts";
import { type CountMetric, countMetrics, forEachMetric, limitName, metricNames, metrics } from "../quota/metrics.ts";
import { periodNames } from "../quota/periods.ts";
import { parseCommandLine, runCommand, UsageError } from "./command-line.ts";
import { withQuota, type CliQuota } from "./open-quota-admin.ts";
import type { CommandIo } from "./this-process.ts";

const usage = `Usage: npm run quota -- COMMAND NAME [OPTIONS]

  show NAME     limits, what is used of them, and grants
  grant NAME    let the user use more for a time   --metric ${metricNames.join("|")}  --per ${periodNames.join("|")}
                --amount N  --currency C  --until T (default: the end of the running period)  --reason TEXT
  adjust NAME   change what counts as used         ${metricNames.map((name) => `--${name}=N`).join("  ")}  --currency C  --reason TEXT
                amounts are added; below 0 (--requests=-3) they are given back
  reset NAME    restart the current period         --per ${periodNames.join("|")}  --reason TEXT
  bring-back    after a clock was ahead for a while: give periods that begin in the future the bounds of the present,
                and keep what was used in them; [NAME] for one user. Make sure first that the clock is right now

T is a time such as 2026-12-31T18:00:00+08:00. --config FILE says where config.toml is.
A running server notices a grant by itself. What is used is in its hands: adjust, reset and bring-back are refused beside it.
With state.backend = "redis" all but bring-back work on what all servers share in the Redis of REDIS_URL, beside them.`;

const options = {
  config: { type: "string" },
  metric: { type: "string" },
  per: { type: "string" },
  amount: { type: "string" },
  currency: { type: "string" },
  until: { type: "string" },
  ...forEachMetric(metricNames, () => ({ type: "string" }) as const),
  reason: { type: "string" },
  help: { type: "boolean", short: "h" },
} as const;

type Values = ReturnType<typeof parseCommandLine<typeof options>>["values"];

interface Call {
  readonly quota: CliQuota;
  readonly name: string;
  /** The options, without --config and --help. */
  readonly values: Omit<Values, "config" | "help">;
  readonly io: CommandIo;
}

const commands: Readonly<Record<string, (call: Call) => Promise<void>>> = { show, grant, adjust, reset };

/**
 * Runs one command of `npm run quota`.
 *
 * @param argv the arguments after the program's name
 * @returns the exit code: 0 done, 1 refused or failed, 2 wrong usage
 */
export function runQuotaCli(argv: readonly string[], io: CommandIo): Promise<number> {
  return runCommand(io, usage, async () => {
    const { values: given, positionals } = parseCommandLine(argv, options);
    const { config, help, ...values } = given;
    const [word = "", name, ...rest] = positionals;
    if (word === "bring-back" && help !== true) {
      if (rest.length > 0 || Object.keys(values).length > 0)
        throw new UsageError("bring-back takes one user name at most");
      await withQuota(config, io, (quota) => bringBack(quota, name, io));
      return 0;
    }
    if (help === true) {
      io.out(usage);
      return 0;
    }
    const command = Object.hasOwn(commands, word) ? commands[word] : undefined;
    if (command === undefined) throw new UsageError(word === "" ? "say what to do" : `there is no command "${word}"`);
    if (name === undefined || rest.length > 0) throw new UsageError(`${word} takes one user name`);
    await withQuota(config, io, (quota) => command({ quota, name, values, io }));
    return 0;
  });
}

async function show({ quota, name, values, io }: Call): Promise<void> {
  if (Object.keys(values).length > 0) throw new UsageError("show takes no such option");
  const { account, limits } = await quota.find(name);
  try {
    showBuckets((await (await quota.openUsed()).of(name)).buckets, io);
  } catch (error) {
    if (!(error instanceof LockedError)) throw error;
    for (const limit of limits) io.out(`${limitName(limit)}: at most ${amountOf(limit, limit.max)}`);
    io.out(`The running server knows what is used: GET /admin/users/${name}/quota`);
  }
  for (const { metric, per, currency = "", amount, until, reason = "" } of quota.grants.inForce(account)) {
    const end = until === null ? "for ever" : `until ${new Date(until).toISOString()}`;
    io.out(`grant: ${limitName({ metric, per, currency })}: ${amount} more ${end}: ${reason}`);
  }
}

async function grant({ quota, name, values, io }: Call): Promise<void> {
  const request = check(grantRequest, values);
  await quota.find(name);
  await quota.grants.add(quota.actor, name, request);
  for (const limit of (await quota.find(name)).limits)
    io.out(`${limitName(limit)}: at most ${amountOf(limit, limit.max)}`);
}

async function adjust({ quota, name, values: given, io }: Call): Promise<void> {
  const values = Object.fromEntries(Object.entries(given).map(([key, value]) => [key, withoutPlus(key, value)]));
  const counts = countMetrics.filter((metric) => values[metric] !== undefined);
  const request = check(adjustRequest, {
    ...values,
    ...Object.fromEntries(counts.map((metric) => [metric, wholeNumber(metric, values[metric] ?? "")])),
  });
  const used = await openUsedFor("adjust", name, quota);
  await used.adjust(quota.actor, name, request);
  showBuckets((await used.of(name)).buckets, io);
}

/** People write `+5` for what is to be added. */
function withoutPlus<T>(key: string, value: T): T | string {
  const isAmount = metricNames.some((metric) => metric === key);
  return isAmount && typeof value === "string" && /^\+\d/.test(value) ? value.slice(1) : value;
}

/** Throws UsageError for what is no whole number, or too large for one. */
function wholeNumber(metric: CountMetric, text: string): number {
  const { expected, most, parseSigned } = metrics[metric];
  try {
    return parseSigned(text);
  } catch {
    throw new UsageError(`--${metric}: expected ${expected} from -${most} to ${most}`);
  }
}

async function bringBack(quota: CliQuota, name: string | undefined, io: CommandIo): Promise<void> {
  const moved = await quota.bringBack(name).catch((error: unknown): never => {
    if (!(error instanceof LockedError)) throw error;
    throw new Error(`the running server keeps what is used: stop it first (${error.holder})`);
  });
  for (const user of moved) io.out(`${user}: brought back`);
  if (moved.length === 0) io.out("no period begins in the future");
}

async function reset({ quota, name, values, io }: Call): Promise<void> {
  const request = check(resetRequest, values);
  const used = await openUsedFor("reset", name, quota);
  await used.reset(quota.actor, name, request);
  showBuckets((await used.of(name)).buckets, io);
}

/** Validates a request as the admin API does. Throws UsageError. */
function check<Schema extends z.ZodType>(schema: Schema, values: object): z.output<Schema> {
  const result = schema.safeParse(values);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const path = issue?.path.join(".") ?? "";
  throw new UsageError(`${path === "" ? "" : `--${path}: `}${plainIssue(issue?.message ?? "")}`);
}

/** Looks up the user first: a mistyped name should be reported as such, whether a server runs or not. */
async function openUsedFor(act: string, name: string, quota: CliQuota): Promise<QuotaAdmin> {
  await quota.find(name);
  return quota.openUsed().catch((error: unknown): never => {
    if (!(error instanceof LockedError)) throw error;
    const route = `POST /admin/users/${name}/quota/${act}`;
    throw new Error(`the running server keeps what is used: use ${route}, or stop it first (${error.holder})`);
  });
}

function showBuckets(buckets: readonly BucketState[], io: CommandIo): void {
  if (buckets.length === 0) io.out("no limits");
  for (const bucket of buckets) io.out(bucketLine(bucket));
}

function bucketLine({ limit, used, remaining, resetAt }: BucketState): string {
  const end = resetAt === null ? "" : `, until ${new Date(resetAt).toISOString()}`;
  const [max, gone, left] = [limit.max, used, remaining].map((amount) => amountOf(limit, amount));
  return `${limitName(limit)}: ${gone} of ${max} used, ${left} left${end}`;
}

function amountOf({ metric }: QuotaLimit, amount: number): string {
  return String(metrics[metric].format(amount));
}

import { existsSync, readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { parse, TomlError } from "smol-toml";
import { datesAsTables, explainIssues } from "./explain.ts";
import { configSchema, mergedConfigSchema, type Config } from "./schema.ts";
import { createLineFinder } from "./toml-lines.ts";
import { readSmallFile } from "../lib/files/followed-file.ts";

/** Environment variables, in the format of process.env. */
export type Env = Readonly<Record<string, string | undefined>>;

/** An unusable config. The message has one line per problem, ready to be printed. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

export interface LoadedConfig {
  readonly config: Config;
  /** The config's file; null if there is none and the defaults apply. */
  readonly file: string | null;
  /** Where the file is, or would be. Absent: it can't be read again. */
  readonly path?: string;
  /** The text of the file; "" if there is none. */
  readonly text?: string;
  /** Relative paths in the config are relative to this folder. */
  readonly folder: string;
}

/**
 * Reads config.toml and applies HOST and PORT.
 * @param path from --config or CONFIG_FILE; absent: ./config.toml if it exists
 * @throws ConfigError naming the file, and the line or path of every problem
 */
export function loadConfig(path: string | undefined, env: Env, workingFolder: string): LoadedConfig {
  const named = path ?? nonEmpty(env.CONFIG_FILE);
  const file = resolve(workingFolder, named ?? "config.toml");
  if (named === undefined && !existsSync(file)) {
    return { config: parseConfig("", "environment", env), file: null, path: file, text: "", folder: workingFolder };
  }
  // At the start it may be a pipe, such as bash's <(...), and all that waits for that is the start.
  const text = readText(file, readFileSync);
  return { config: parseConfig(text, file, env), file, path: file, text, folder: dirname(file) };
}

/** No config is larger, in bytes. */
const maxConfigBytes = 16 << 20;

/**
 * The text of a config file while the process serves: a pipe would stop it until somebody writes, and a device says
 * nothing about the config. Throws ConfigError if it can't be read.
 */
export function readConfigText(file: string): string {
  return readText(file, (path) => readSmallFile(path, maxConfigBytes));
}

function readText(file: string, read: (path: string) => Buffer): string {
  try {
    // Refuses invalid UTF-8; a reader of texts would put replacement characters into names.
    return new TextDecoder("utf-8", { fatal: true }).decode(read(file));
  } catch (cause) {
    throw new ConfigError(`${file}: cannot be read: ${messageOf(cause)}`, { cause });
  }
}

/** Parses the text of a config file. `name` is its name in messages. Throws ConfigError. */
export function parseConfig(text: string, name: string, env: Env = {}): Config {
  let input: Record<string, unknown>;
  try {
    // No number is rounded: the schema refuses those that are too large, by their field.
    input = parse(text, { integersAsBigInt: "asNeeded" });
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause;
    const what = cause.message.split("\n", 1)[0] ?? "";
    throw new ConfigError(`${name}:${cause.line}:${cause.column}: ${what}`, { cause });
  }
  const problems: string[] = [];
  applyEnv(input, env, problems);
  const result = configSchema.safeParse(input);
  const issues = [...datesAsTables(input), ...(result.error?.issues ?? [])];
  if (issues.length > 0) problems.push(...explainIssues(issues, input, createLineFinder(text)));
  if (problems.length > 0 || !result.success) {
    throw new ConfigError(problems.map((problem) => `${name}: ${problem}`).join("\n"));
  }
  return result.data;
}

/**
 * What does not fit together in the valid config of a file once some of its keys have the values of a running process,
 * one problem a line.
 *
 * @param kept the keys that differ
 */
export function problemsOfMerged(merged: Config, kept: readonly string[]): readonly string[] {
  const { error } = mergedConfigSchema.safeParse(merged);
  if (error === undefined) return [];
  const why = `; ${kept.join(", ")} can only change with a restart, which this config needs`;
  return explainIssues(error.issues, merged).map((problem) => problem + why);
}

/** HOST and PORT override the file; empty ones, which container tools often set, count as absent. */
function applyEnv(input: Record<string, unknown>, env: Env, problems: string[]): void {
  const host = nonEmpty(env.HOST);
  const port = nonEmpty(env.PORT);
  const server = input.server ?? {};
  // A value that is not a table is refused together with the other problems.
  if (typeof server !== "object" || Array.isArray(server)) return;
  const isPort = port !== undefined && /^\d{1,5}$/.test(port) && Number(port) <= 65_535;
  if (port !== undefined && !isPort) {
    problems.push(`environment PORT: expected a port number, got text ${JSON.stringify(port)}`);
  }
  input.server = { ...server, ...(host === undefined ? {} : { host }), ...(isPort ? { port: Number(port) } : {}) };
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === "" ? undefined : text;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

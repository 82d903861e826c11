import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { stringify, TomlError } from "smol-toml";
import { z } from "zod";
import { groupSchema, type Config, type GroupConfig } from "../../config/schema.ts";
import { AppError } from "../../errors.ts";
import { readPlainFile, removeTemporaries, syncFolder } from "../../lib/files/atomic-file.ts";
import { diskOps, type FileOps } from "../../lib/files/file-ops.ts";
import type { Log } from "../../lib/log.ts";
import { expandMembers, type MemberProblem } from "../../lib/member-graph.ts";
import { createGroup, type Group, type GroupFields, type GroupPatch, type Groups } from "../groups.ts";
import { isUserName } from "../user-name.ts";
import type { AccountProblem } from "../users.ts";
import { writeAccountFile } from "./account-file.ts";
import { createKeyedQueue } from "./keyed-queue.ts";
import { parseToml } from "./toml-edit.ts";

const ending = ".toml";
const maxGroups = 1000;

export interface FileGroupsOptions {
  /** Their folder, users/groups, is made when the first one is. */
  readonly usersDir: string;
  /** Those of the config, which win over stored ones of the same name. */
  readonly groups: Config["groups"];
  readonly log: Log;
  /** How to write; by default to the disk. */
  readonly fileOps?: FileOps | undefined;
}

/** The groups of the config, and those in users/groups/NAME.toml, which only the proxy writes. */
export interface FileGroups extends Groups {
  get(name: string): Group | undefined;
  list(): readonly Group[];
  ofUser(user: string): readonly Group[];
  problems(): readonly AccountProblem[];
  /** Replaces those of the config. */
  configure(groups: Config["groups"]): void;
  /** Calls the listener after each change of the groups. */
  onChange(listener: () => void): void;
  /** Waits for changes that are being stored. */
  close(): Promise<void>;
}

/** What is in force. */
interface View {
  readonly groups: ReadonlyMap<string, Group>;
  readonly ofUser: ReadonlyMap<string, readonly Group[]>;
  /** Of stored groups. */
  readonly problems: readonly MemberProblem[];
}

const none: readonly Group[] = [];

/** Loads the stored groups. Rejects if their folder can't be read. */
export async function openFileGroups(options: FileGroupsOptions): Promise<FileGroups> {
  const { usersDir, log, fileOps = diskOps } = options;
  const folder = join(usersDir, "groups");
  const stored = new Map<string, GroupConfig>();
  /** Files that can't be used, by the name of their group. They are never overwritten. */
  const broken = new Map<string, AccountProblem>();
  const queue = createKeyedQueue();
  const listeners: (() => void)[] = [];
  let ofConfig = options.groups;

  for (const file of await filesIn(folder)) {
    const name = file.slice(0, -ending.length);
    try {
      if (!isUserName(name)) throw new Error("expected a name of lower-case letters, digits, - and _");
      stored.set(name, groupSchema.parse(parseToml(await readPlainFile(join(folder, file)))));
    } catch (error) {
      const problem = { file: `groups/${file}`, reason: reasonOf(error) };
      broken.set(name, problem);
      log.error(problem, "a group cannot be read: not in force");
    }
  }
  let view = viewOf(stored);
  for (const problem of problems()) log.error(problem, "a group is not in force as it is stored");

  function viewOf(definitions: ReadonlyMap<string, GroupConfig>): View {
    const all = new Map<string, readonly [GroupConfig, Group["origin"]]>();
    for (const [name, config] of Object.entries(ofConfig)) all.set(name, [config, "config"]);
    for (const name of [...definitions.keys()].sort()) {
      const config = definitions.get(name);
      if (config !== undefined && !all.has(name)) all.set(name, [config, "admin"]);
    }
    const expanded = expandMembers(new Map([...all].map(([name, [config]]) => [name, config.members])));
    const groups = new Map<string, Group>();
    const ofUser = new Map<string, Group[]>();
    for (const [name, [config, origin]] of all) {
      const group = createGroup(name, config, expanded.members.get(name) ?? [], origin);
      groups.set(name, group);
      for (const user of group.members) {
        const known = ofUser.get(user);
        if (known === undefined) ofUser.set(user, [group]);
        else known.push(group);
      }
    }
    return { groups, ofUser, problems: expanded.problems.filter(({ group }) => definitions.has(group)) };
  }

  function problems(): readonly AccountProblem[] {
    const hidden = [...stored.keys()].filter((name) => Object.hasOwn(ofConfig, name));
    return [
      ...broken.values(),
      ...hidden.map((name) => ({ file: `groups/${name}${ending}`, reason: "config.toml has a group of this name" })),
      ...view.problems.map(({ group, index, member, message }) => {
        return { file: `groups/${group}${ending}`, reason: `members.${index}: ${message}, got ${member}` };
      }),
    ];
  }

  function use(next: View): void {
    view = next;
    for (const listener of listeners) listener();
  }

  /** Stores a group, after it has been checked together with all others. Only inside a task of the queue. */
  async function store(name: string, config: GroupConfig): Promise<Group> {
    const next = viewOf(new Map(stored).set(name, config));
    // What was wrong before must not block a change: only what it would make wrong.
    const before = new Set(view.problems.map(({ identity }) => identity));
    const problem = next.problems.find(({ identity }) => !before.has(identity));
    if (problem !== undefined) {
      const place = problem.group === name ? "" : `, in the group ${problem.group}`;
      const message = `members: ${problem.message}, got ${JSON.stringify(problem.member)}${place}`;
      throw new AppError("invalid_request", { param: "members", message });
    }
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      await writeAccountFile(join(folder, `${name}${ending}`), textOf(config), fileOps);
    } catch (cause) {
      log.error({ group: name, err: cause }, "a group could not be written");
      throw new AppError("storage_unavailable", { message: "The group could not be saved.", cause });
    }
    stored.set(name, config);
    // The config may have changed while the file was written.
    use(viewOf(stored));
    const group = view.groups.get(name);
    if (group === undefined) throw new Error("a stored group is missing");
    return group;
  }

  async function unlinkFile(name: string): Promise<void> {
    try {
      await fileOps.unlink(join(folder, `${name}${ending}`));
      await syncFolder(folder, fileOps);
    } catch (cause) {
      log.error({ group: name, err: cause }, "a group could not be removed");
      throw new AppError("storage_unavailable", { message: "The group could not be removed.", cause });
    }
  }

  function checkOurs(name: string): void {
    if (!Object.hasOwn(ofConfig, name)) return;
    const message = `The group ${name} is in config.toml: change it there, and reload.`;
    throw new AppError("conflict", { message });
  }

  /** All changes go one after another: each is checked against all groups. */
  const inTurn = <T>(task: () => Promise<T>): Promise<T> => queue.run("", task);

  return {
    get: (name) => view.groups.get(name),
    list: () => [...view.groups.values()],
    ofUser: (user) => view.ofUser.get(user) ?? none,
    create: (name, fields) =>
      inTurn(async () => {
        if (!isUserName(name)) {
          const message = "A group's name has 1 to 32 characters: lower-case letters, digits, - and _.";
          throw new AppError("invalid_request", { param: "name", message });
        }
        if (view.groups.has(name)) throw new AppError("conflict", { message: `There is a group ${name} already.` });
        if (broken.has(name)) throw new AppError("conflict", { message: `The file of the group ${name} is damaged.` });
        if (view.groups.size >= maxGroups)
          throw new AppError("conflict", { message: `There are ${maxGroups} groups.` });
        return store(name, checked(fields));
      }),
    change: (name, patch) =>
      inTurn(async () => {
        checkOurs(name);
        const group = view.groups.get(name);
        const before = stored.get(name);
        if (group === undefined || before === undefined) throw notFound(name);
        return store(name, checked(withPatch(before, typeof patch === "function" ? patch(group) : patch)));
      }),
    remove: (name, endAccess) =>
      inTurn(async () => {
        checkOurs(name);
        const config = stored.get(name);
        if (config === undefined) return false;
        const users = [...view.groups.values()].filter(({ listed }) => listed.includes(`@${name}`));
        if (users.length > 0) {
          const message = `The group ${name} is a member of ${users.map((one) => one.name).join(", ")}: take it out first.`;
          throw new AppError("conflict", { message });
        }
        stored.delete(name);
        use(viewOf(stored));
        try {
          await endAccess?.();
          await unlinkFile(name);
        } catch (error) {
          stored.set(name, config);
          use(viewOf(stored));
          throw error;
        }
        return true;
      }),
    problems,
    configure(groups) {
      ofConfig = groups;
      use(viewOf(stored));
    },
    onChange: (listener) => listeners.push(listener),
    close: () => queue.idle(),
  };
}

function notFound(name: string): AppError {
  return new AppError("not_found", { message: `There is no group ${JSON.stringify(name)}.` });
}

/** Throws AppError invalid_request, which names the field. */
function checked(fields: GroupFields): GroupConfig {
  const { success, data, error } = groupSchema.safeParse(fields);
  if (success) return data;
  const [issue] = error.issues;
  const param = issue?.path.join(".") ?? "";
  throw new AppError("invalid_request", { param, message: `${param}: ${issue?.message ?? "invalid"}` });
}

function withPatch(before: GroupConfig, patch: GroupPatch): GroupFields {
  const changes = Object.entries(patch).filter(([, value]) => value !== undefined);
  const merged = Object.entries<unknown>({ ...before, ...Object.fromEntries(changes) });
  return Object.fromEntries(merged.filter(([, value]) => value !== null));
}

/** Without what is empty. */
function textOf(config: GroupConfig): string {
  const kept = Object.entries(config).filter(
    ([, value]) => value !== undefined && value !== "" && !(Array.isArray(value) && value.length === 0),
  );
  return `# Written by the proxy: changes made here are lost.\n${stringify(Object.fromEntries(kept))}`;
}

async function filesIn(folder: string): Promise<readonly string[]> {
  try {
    // The half-written files of a killed process.
    await removeTemporaries(folder, ending);
    return (await readdir(folder)).filter((file) => file.endsWith(ending) && !file.startsWith(".")).sort();
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
    throw error;
  }
}

function reasonOf(error: unknown): string {
  if (error instanceof TomlError) return error.message.split("\n", 1)[0] ?? "invalid TOML";
  if (error instanceof z.ZodError) {
    return error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`).join("; ");
  }
  return error instanceof Error ? error.message : String(error);
}

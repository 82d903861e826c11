import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Config, GroupConfig } from "../../config/schema.ts";
import { AppError } from "../../errors.ts";
import { readPlainFile, removeTemporaries, syncFolder } from "../../lib/files/atomic-file.ts";
import { diskOps, type FileOps } from "../../lib/files/file-ops.ts";
import type { Log } from "../../lib/log.ts";
import {
  checkedGroup,
  checkNewGroup,
  checkNewView,
  checkRemovable,
  checkStoredGroup,
  createGroupView,
  groupProblems,
  groupReason,
  groupText,
  type GroupView,
  noSuchGroup,
  parseGroup,
  withGroupPatch,
} from "../group-view.ts";
import type { Group, Groups } from "../groups.ts";
import type { AccountProblem } from "../users.ts";
import { writeAccountFile } from "./account-file.ts";
import { createKeyedQueue } from "./keyed-queue.ts";

const ending = ".toml";

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
      stored.set(name, parseGroup(name, await readPlainFile(join(folder, file))));
    } catch (error) {
      const problem = { file: `groups/${file}`, reason: groupReason(error) };
      broken.set(name, problem);
      log.error(problem, "a group cannot be read: not in force");
    }
  }
  let view = viewOf(stored);
  for (const problem of problems()) log.error(problem, "a group is not in force as it is stored");

  function viewOf(definitions: ReadonlyMap<string, GroupConfig>): GroupView {
    return createGroupView(ofConfig, definitions);
  }

  function problems(): readonly AccountProblem[] {
    return [...broken.values(), ...groupProblems(view, ofConfig, stored)];
  }

  function use(next: GroupView): void {
    view = next;
    for (const listener of listeners) listener();
  }

  /** Stores a group, after it has been checked together with all others. Only inside a task of the queue. */
  async function store(name: string, config: GroupConfig): Promise<Group> {
    const next = viewOf(new Map(stored).set(name, config));
    checkNewView(view, next, name);
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      await writeAccountFile(join(folder, `${name}${ending}`), groupText(config), fileOps);
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

  /** All changes go one after another: each is checked against all groups. */
  const inTurn = <T>(task: () => Promise<T>): Promise<T> => queue.run("", task);

  return {
    get: (name) => view.groups.get(name),
    list: () => [...view.groups.values()],
    ofUser: (user) => view.ofUser.get(user) ?? none,
    create: (name, fields) =>
      inTurn(async () => {
        checkNewGroup(view, name);
        if (broken.has(name)) throw new AppError("conflict", { message: `The file of the group ${name} is damaged.` });
        return store(name, checkedGroup(fields));
      }),
    change: (name, patch) =>
      inTurn(async () => {
        checkStoredGroup(ofConfig, name);
        const group = view.groups.get(name);
        const before = stored.get(name);
        if (group === undefined || before === undefined) throw noSuchGroup(name);
        return store(name, checkedGroup(withGroupPatch(before, typeof patch === "function" ? patch(group) : patch)));
      }),
    remove: (name, endAccess, check) =>
      inTurn(async () => {
        checkStoredGroup(ofConfig, name);
        const [config, group] = [stored.get(name), view.groups.get(name)];
        if (config === undefined || group === undefined) return false;
        check?.(group);
        checkRemovable(view, name);
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

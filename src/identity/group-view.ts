import { stringify, TomlError } from "smol-toml";
import { z } from "zod";
import { plainIssue } from "../lib/plain-issue.ts";
import { groupSchema, type Config, type GroupConfig } from "../config/schema.ts";
import { AppError } from "../errors.ts";
import { expandMembers, type MemberProblem } from "../lib/member-graph.ts";
import { parseToml } from "./files/toml-edit.ts";
import { createGroup, type Group, type GroupFields, type GroupPatch } from "./groups.ts";
import { isUserName } from "./user-name.ts";
import type { AccountProblem } from "./users.ts";

const maxGroups = 1000;

/** The groups in force. Replaced, never mutated. */
export interface GroupView {
  readonly groups: ReadonlyMap<string, Group>;
  readonly ofUser: ReadonlyMap<string, readonly Group[]>;
  /** Of stored groups. */
  readonly problems: readonly MemberProblem[];
}

/**
 * Puts groups into force.
 *
 * @param ofConfig those of the config, which win over stored ones of the same name
 */
export function createGroupView(ofConfig: Config["groups"], stored: ReadonlyMap<string, GroupConfig>): GroupView {
  const all = new Map<string, readonly [GroupConfig, Group["origin"]]>();
  for (const [name, config] of Object.entries(ofConfig)) all.set(name, [config, "config"]);
  for (const name of [...stored.keys()].sort()) {
    const config = stored.get(name);
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
  return { groups, ofUser, problems: expanded.problems.filter(({ group }) => stored.has(group)) };
}

/** What keeps stored groups from being in force as they are, by the name of their file. */
export function groupProblems(
  view: GroupView,
  ofConfig: Config["groups"],
  stored: ReadonlyMap<string, GroupConfig>,
): readonly AccountProblem[] {
  const hidden = [...stored.keys()].filter((name) => Object.hasOwn(ofConfig, name));
  return [
    ...hidden.map((name) => ({ file: groupFile(name), reason: "config.toml has a group of this name" })),
    ...view.problems.map(({ group, index, member, message }) => {
      return { file: groupFile(group), reason: `members.${index}: ${message}, got ${member}` };
    }),
  ];
}

/** Its file in the users folder. */
function groupFile(name: string): string {
  return `groups/${name}.toml`;
}

/**
 * Throws AppError `invalid_request` if a change of the group `name` makes wrong what was right before it. What was
 * wrong before must not block a change.
 */
export function checkNewView(before: GroupView, after: GroupView, name: string): void {
  const known = new Set(before.problems.map(({ identity }) => identity));
  const problem = after.problems.find(({ identity }) => !known.has(identity));
  if (problem === undefined) return;
  const place = problem.group === name ? "" : `, in the group ${problem.group}`;
  const message = `members: ${problem.message}, got ${JSON.stringify(problem.member)}${place}`;
  throw new AppError("invalid_request", { param: "members", message });
}

/** Throws AppError `conflict` if the group belongs to the config. */
export function checkStoredGroup(ofConfig: Config["groups"], name: string): void {
  if (!Object.hasOwn(ofConfig, name)) return;
  throw new AppError("conflict", { message: `The group ${name} is in config.toml: change it there, and reload.` });
}

/** Throws AppError `invalid_request` or `conflict` if there can't be a new group of this name. */
export function checkNewGroup({ groups }: GroupView, name: string): void {
  if (!isUserName(name)) {
    const message = "A group's name has 1 to 32 characters: lower-case letters, digits, - and _.";
    throw new AppError("invalid_request", { param: "name", message });
  }
  if (groups.has(name)) throw new AppError("conflict", { message: `There is a group ${name} already.` });
  if (groups.size >= maxGroups) throw new AppError("conflict", { message: `There are ${maxGroups} groups.` });
}

/** Throws AppError `conflict` if other groups have this one as a member. */
export function checkRemovable({ groups }: GroupView, name: string): void {
  const users = [...groups.values()].filter(({ listed }) => listed.includes(`@${name}`));
  if (users.length === 0) return;
  const message = `The group ${name} is a member of ${users.map((one) => one.name).join(", ")}: take it out first.`;
  throw new AppError("conflict", { message });
}

export function noSuchGroup(name: string): AppError {
  return new AppError("not_found", { message: `There is no group ${JSON.stringify(name)}.` });
}

/** Throws AppError `invalid_request`, which names the field. */
export function checkedGroup(fields: GroupFields): GroupConfig {
  const { success, data, error } = groupSchema.safeParse(fields);
  if (success) return data;
  const [issue] = error.issues;
  const param = issue?.path.join(".") ?? "";
  throw new AppError("invalid_request", { param, message: `${param}: ${plainIssue(issue?.message ?? "invalid")}` });
}

export function withGroupPatch(before: GroupConfig, patch: GroupPatch): GroupFields {
  const changes = Object.entries(patch).filter(([, value]) => value !== undefined);
  const merged = Object.entries<unknown>({ ...before, ...Object.fromEntries(changes) });
  return Object.fromEntries(merged.filter(([, value]) => value !== null));
}

/** The text of a stored group, without what is empty. */
export function groupText(config: GroupConfig): string {
  const kept = Object.entries(config).filter(
    ([, value]) => value !== undefined && value !== "" && !(Array.isArray(value) && value.length === 0),
  );
  return `# Written by the proxy: changes made here are lost.\n${stringify(Object.fromEntries(kept))}`;
}

/** Parses the text of a stored group. Throws an error that groupReason explains. */
export function parseGroup(name: string, text: string): GroupConfig {
  if (!isUserName(name)) throw new Error("expected a name of lower-case letters, digits, - and _");
  return groupSchema.parse(parseToml(text));
}

/** Why a stored group can't be read. */
export function groupReason(error: unknown): string {
  if (error instanceof TomlError) return error.message.split("\n", 1)[0] ?? "invalid TOML";
  if (error instanceof z.ZodError) {
    return error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`).join("; ");
  }
  return error instanceof Error ? error.message : String(error);
}

/** A member that can't be expanded. */
export interface MemberProblem {
  readonly group: string;
  /** Its place in the group's list. */
  readonly index: number;
  /** Says what was expected. */
  readonly message: string;
}

export interface ExpandedMembers {
  /** By group: all its members without groups, sorted. A member with a problem is left out. */
  readonly members: ReadonlyMap<string, readonly string[]>;
  readonly problems: readonly MemberProblem[];
}

/** Groups inside groups, the outermost included. */
const maxDepth = 8;
/** Members of one group, those of its groups included. */
const maxMembers = 10_000;

interface Expanded {
  readonly members: ReadonlySet<string>;
  readonly depth: number;
}

/** Expands the lists of groups, in which `@NAME` stands for the members of another one. Each is expanded once. */
export function expandMembers(lists: ReadonlyMap<string, readonly string[]>): ExpandedMembers {
  const problems: MemberProblem[] = [];
  const known = new Map<string, Expanded>();
  /** The groups that are being expanded, from the outside in. */
  const path: string[] = [];

  function expand(group: string, list: readonly string[]): Expanded {
    path.push(group);
    const members = new Set<string>();
    let depth = 1;
    list.forEach((member, index) => {
      if (members.size > maxMembers) return;
      const refuse = (message: string): void => void problems.push({ group, index, message });
      const inner = member.startsWith("@") ? innerOf(member.slice(1)) : { members: [member], depth: 0 };
      if (typeof inner === "string") refuse(inner);
      else if (inner.depth >= maxDepth) refuse(`expected at most ${maxDepth} groups inside each other`);
      else {
        depth = Math.max(depth, inner.depth + 1);
        for (const one of inner.members) members.add(one);
        if (members.size > maxMembers) refuse(`expected at most ${maxMembers} members, those of groups included`);
      }
    });
    path.pop();
    const expanded = { members, depth };
    known.set(group, expanded);
    return expanded;
  }

  /** The members of a group inside another, or why there are none. */
  function innerOf(name: string): { readonly members: Iterable<string>; readonly depth: number } | string {
    const list = lists.get(name);
    if (list === undefined) return `expected the name of a group: ${[...lists.keys()].join(", ")}`;
    const at = path.indexOf(name);
    if (at >= 0) return `expected no cycle: ${[...path.slice(at), name].join(" -> ")}`;
    return known.get(name) ?? expand(name, list);
  }

  for (const [group, list] of lists) if (!known.has(group)) expand(group, list);
  return {
    members: new Map([...lists.keys()].map((group) => [group, [...(known.get(group)?.members ?? [])].sort()])),
    problems,
  };
}

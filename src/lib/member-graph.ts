/** A member that can't be expanded. */
export interface MemberProblem {
  readonly group: string;
  /** Its place in the group's list. */
  readonly index: number;
  /** As it is written. */
  readonly member: string;
  /** Equal for two problems that are the same, whatever else the groups and the list have. */
  readonly identity: string;
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

/** Groups that a message names. */
const maxNamed = 20;

interface Expanded {
  readonly members: ReadonlySet<string>;
  readonly depth: number;
}

/** Why a group inside another has no members. */
interface Refusal {
  readonly identity: string;
  readonly message: string;
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
      const refuse = (identity: string, message: string): void =>
        void problems.push({ group, index, member, identity, message });
      const inner = member.startsWith("@") ? innerOf(member.slice(1), group) : { members: [member], depth: 0 };
      if ("message" in inner) refuse(inner.identity, inner.message);
      else if (inner.depth >= maxDepth) {
        refuse(`depth ${group} ${member}`, `expected at most ${maxDepth} groups inside each other`);
      } else {
        depth = Math.max(depth, inner.depth + 1);
        for (const one of inner.members) members.add(one);
        if (members.size > maxMembers) {
          refuse(`size ${group}`, `expected at most ${maxMembers} members, those of groups included`);
        }
      }
    });
    path.pop();
    const expanded = { members, depth };
    known.set(group, expanded);
    return expanded;
  }

  function innerOf(name: string, outer: string): { members: Iterable<string>; depth: number } | Refusal {
    const list = lists.get(name);
    if (list === undefined) {
      return { identity: `unknown ${outer} ${name}`, message: `expected ${othersOf(outer)}` };
    }
    const at = path.indexOf(name);
    if (at >= 0) {
      const cycle = path.slice(at);
      // Where a cycle is found depends on the group that is expanded first.
      const identity = `cycle ${[...cycle].sort().join(" ")}`;
      return { identity, message: `expected no cycle: ${[...cycle, name].join(" -> ")}` };
    }
    return known.get(name) ?? expand(name, list);
  }

  /** What may stand for a group in the list of another. */
  function othersOf(outer: string): string {
    const others: string[] = [];
    for (const name of lists.keys()) {
      if (name === outer) continue;
      if (others.push(`@${name}`) > maxNamed) break;
    }
    const named = others.length > maxNamed ? [...others.slice(0, maxNamed), "…"] : others;
    return named.length === 0 ? "the name of a user: there is no other group" : `another group: ${named.join(", ")}`;
  }

  for (const [group, list] of lists) if (!known.has(group)) expand(group, list);
  return {
    members: new Map([...lists.keys()].map((group) => [group, [...(known.get(group)?.members ?? [])].sort()])),
    problems,
  };
}

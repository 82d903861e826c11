import { BlockList, isIP, isIPv4, isIPv6, SocketAddress } from "node:net";

type Family = "ipv4" | "ipv6";

/** A set of addresses and networks. */
export interface IpList {
  /** Whether an address is in the list. Anything that is not an address is not. */
  has(ip: string): boolean;
}

/**
 * Creates a list of IPv4 and IPv6 addresses and networks in CIDR notation. An IPv4 address written as IPv6
 * (::ffff:127.0.0.1, as a dual-stack socket reports it) is treated as IPv4, in entries and lookups.
 * @throws Error that names an entry which is neither.
 */
export function createIpList(entries: readonly string[]): IpList {
  // Most lists are empty, and are asked for every request: reading the address would be in vain.
  if (entries.length === 0) return { has: () => false };
  // One per family: a BlockList treats IPv4 addresses as mapped ones and finds them in IPv6 networks such as ::/0.
  const lists = { ipv4: new BlockList(), ipv6: new BlockList() };
  for (const entry of entries) {
    const { address, prefix, family } = readEntry(entry);
    lists[family].addSubnet(address, prefix, family);
  }
  return {
    has(ip) {
      const address = unmapped(ip);
      if (address === undefined) return false;
      const family = familyOf(address);
      return lists[family].check(address, family);
    },
  };
}

/** Decides by address. */
export interface AddressRules {
  allows(ip: string): boolean;
}

/**
 * Rules of two lists: what `deny` names is refused, even if `allow` names it; an empty `allow` names all.
 * @throws Error as createIpList does
 */
export function createAddressRules(allow: readonly string[], deny: readonly string[]): AddressRules {
  const denied = createIpList(deny);
  if (allow.length === 0) return { allows: (ip) => !denied.has(ip) };
  const allowed = createIpList(allow);
  return { allows: (ip) => allowed.has(ip) && !denied.has(ip) };
}

/** Whether createIpList accepts an entry. */
export function isNetwork(entry: string): boolean {
  try {
    readEntry(entry);
    return true;
  } catch {
    return false;
  }
}

function readEntry(entry: string): { address: string; prefix: number; family: Family } {
  const [, written = "", digits] = /^([^/]*)(?:\/(\d{1,3}))?$/.exec(entry) ?? [];
  const address = unmapped(written);
  if (address === undefined) throw new Error(`not an address or a network: ${entry}`);
  const family = familyOf(address);
  const bits = family === "ipv4" ? 32 : 128;
  // The 96 bits before a mapped address are removed.
  const dropped = isIPv4(written) ? 0 : 128 - bits;
  const prefix = digits === undefined ? bits : Number(digits) - dropped;
  if (prefix < 0 || prefix > bits) throw new Error(`not an address or a network: ${entry}`);
  return { address, prefix, family };
}

/** The address in canonical form, without a zone, as IPv4 if it is one; undefined if it is not an address. */
function unmapped(ip: string): string | undefined {
  const version = isIP(ip);
  if (version === 0) return undefined;
  if (version === 4) return ip;
  const [address = ""] = ip.split("%");
  const plain = new SocketAddress({ address, family: "ipv6" }).address;
  const embedded = plain.slice("::ffff:".length);
  return plain.startsWith("::ffff:") && isIPv4(embedded) ? embedded : plain;
}

function familyOf(address: string): Family {
  return isIPv4(address) ? "ipv4" : "ipv6";
}

/** One entry of X-Forwarded-For with what surrounds an address: a port, or the brackets of a URL. */
const wrapped = /^(?:(\d{1,3}(?:\.\d{1,3}){3}):\d{1,5}|\[([0-9A-Fa-f:.]+)\](?::\d{1,5})?)$/;

/**
 * The addresses of an X-Forwarded-For header without their ports and brackets, which some proxies add: with them they would
 * be in no list, and the same client would be another one with each connection. What is no address stays as it is.
 */
export function plainForwardedFor(header: string): string {
  if (!header.includes(":")) return header;
  const plain = (entry: string): string => {
    const text = entry.trim();
    const [, ipv4, ipv6] = wrapped.exec(text) ?? [];
    return ipv4 ?? ipv6 ?? text;
  };
  return header.split(",").map(plain).join(", ");
}

const maxTextLength = 64;

/** Sizes of IPv6 networks that typically belong to one party: a device, a home, a site. */
export type NetworkBits = 64 | 56 | 48;

/**
 * The part of an address that identifies one party: the whole IPv4 address, or the first 64 bits of an IPv6 address
 * (`2001:db8:0:1::/64`), since one party has all addresses of such a network. IPv4 written as IPv6 is treated as IPv4.
 * Anything that is not an address is returned as it is, truncated to 64 characters.
 *
 * @param bits of an IPv6 address; default 64
 */
export function ipPrefix(ip: string, bits: NetworkBits = 64): string {
  const [address = ""] = ip.split("%");
  if (isIPv4(address) || !isIPv6(address)) return address.slice(0, maxTextLength);
  const groups = groupsOf(address);
  const mapped = groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff;
  if (mapped)
    return groups
      .slice(6)
      .flatMap((group) => [group >> 8, group & 0xff])
      .join(".");
  const [a = 0, b = 0, c = 0, d = 0] = groups;
  const kept = bits === 48 ? [a, b, c] : [a, b, c, bits === 56 ? d & 0xff00 : d];
  return `${kept.map((group) => group.toString(16)).join(":")}::/${bits}`;
}

/** The eight groups of 16 bits of an IPv6 address. */
function groupsOf(address: string): number[] {
  // URL also converts the dotted end of an address to hexadecimal, so only one notation is left to parse.
  const plain = new URL(`http://[${address}]`).hostname.slice(1, -1);
  const [head = [], tail = []] = plain.split("::").map((side) => (side === "" ? [] : side.split(":")));
  const zeros = Array<string>(8 - head.length - tail.length).fill("0");
  return [...head, ...zeros, ...tail].map((group) => Number.parseInt(group, 16));
}

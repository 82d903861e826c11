import { isIPv4, isIPv6 } from "node:net";

const maxTextLength = 64;

/** Sizes of the IPv6 networks that one party may have to itself: a device, a home, a site. */
export type NetworkBits = 64 | 56 | 48;

/**
 * The part of an address that stands for one party: an IPv4 address as it is, of an IPv6 address the first 64 bits
 * (`2001:db8:0:1::/64`), since whoever has one of those has them all. IPv4 written as IPv6 is IPv4. What is no address
 * stands for itself, cut at 64 characters.
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
  // URL writes the dotted end of an address in hexadecimal too, so there is one notation left to read.
  const plain = new URL(`http://[${address}]`).hostname.slice(1, -1);
  const [head = [], tail = []] = plain.split("::").map((side) => (side === "" ? [] : side.split(":")));
  const zeros = Array<string>(8 - head.length - tail.length).fill("0");
  return [...head, ...zeros, ...tail].map((group) => Number.parseInt(group, 16));
}

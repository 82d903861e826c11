import { createIpList } from "./ip-list.ts";

/** Networks of the IANA special-purpose registries, multicast and the reserved rest. */
const specialIpv4 = createIpList([
  "0.0.0.0/8",
  "10.0.0.0/8",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.0.0.0/24",
  "192.0.2.0/24",
  "192.88.99.0/24",
  "192.168.0.0/16",
  "198.18.0.0/15",
  "198.51.100.0/24",
  "203.0.113.0/24",
  "224.0.0.0/3",
]);
const anyIpv4 = createIpList(["0.0.0.0/0"]);
const globalIpv6 = createIpList(["2000::/3"]);
/** Inside 2000::/3: protocol assignments with Teredo, documentation, and 6to4, which carries any IPv4 address. */
const specialIpv6 = createIpList(["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"]);

/**
 * Whether an address is one of the public internet: not this machine, not a private, link-local, shared, multicast,
 * documentation or reserved network, nor an IPv6 address that leads to one by translation. IPv4 written as IPv6
 * (::ffff:10.0.0.1) is judged as IPv4. What is no address is not public.
 */
export function isPublicAddress(ip: string): boolean {
  if (anyIpv4.has(ip)) return !specialIpv4.has(ip);
  return globalIpv6.has(ip) && !specialIpv6.has(ip);
}

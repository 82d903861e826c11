import { lookup, type LookupAddress, type LookupAllOptions } from "node:dns";
import type { LookupFunction } from "node:net";
import { createIpList } from "./ip-list.ts";

/** As dns.lookup with `all`. */
export type Resolve = (
  hostname: string,
  options: LookupAllOptions,
  callback: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void,
) => void;

/** A host name or an address in a URL leads to a forbidden address. */
export class AddressRefusedError extends Error {
  override readonly name = "AddressRefusedError";

  constructor(address: string) {
    super(`connections to ${address} are not allowed`);
  }
}

/**
 * A lookup for a socket that refuses a name if any of its addresses is not allowed. The socket connects to the very
 * addresses that were checked, so a name that changes between check and use (DNS rebinding) is harmless.
 *
 * A socket does not look up literal addresses: check those beforehand.
 */
export function createCheckedLookup(
  isAllowed: (address: string) => boolean,
  resolve: Resolve = lookup,
): LookupFunction {
  return (hostname, options, callback) => {
    resolve(hostname, { ...options, all: true }, (error, addresses) => {
      const refused = addresses.find(({ address }) => !isAllowed(address));
      const [first] = addresses;
      if (error !== null) callback(error, "");
      else if (refused !== undefined) callback(new AddressRefusedError(refused.address), "");
      else if (options.all === true || first === undefined) callback(null, addresses);
      else callback(null, first.address, first.family);
    });
  };
}

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
/** Inside 2000::/3: protocol assignments with Teredo, documentation, and 6to4, which embeds any IPv4 address. */
const specialIpv6 = createIpList(["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"]);

/**
 * Whether an address is on the public internet: not this machine, not a private, link-local, shared, multicast,
 * documentation or reserved network, nor an IPv6 address that translates to one. IPv4 written as IPv6 (::ffff:10.0.0.1)
 * is treated as IPv4. Anything that is not an address is not public.
 */
export function isPublicAddress(ip: string): boolean {
  if (anyIpv4.has(ip)) return !specialIpv4.has(ip);
  return globalIpv6.has(ip) && !specialIpv6.has(ip);
}

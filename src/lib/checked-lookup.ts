import { lookup, type LookupAddress, type LookupAllOptions } from "node:dns";
import type { LookupFunction } from "node:net";

/** As dns.lookup with `all`. */
export type Resolve = (
  hostname: string,
  options: LookupAllOptions,
  callback: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void,
) => void;

/** A name, or an address in a URL, leads to where it may not. */
export class AddressRefusedError extends Error {
  override readonly name = "AddressRefusedError";

  constructor(address: string) {
    super(`connections to ${address} are not allowed`);
  }
}

/**
 * A lookup for a socket that refuses a name if any of its addresses is not allowed. The socket connects to the very
 * addresses that were checked, so a name that changes between check and use (DNS rebinding) gains nothing.
 *
 * A socket does not look up what is an address already: check those before.
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

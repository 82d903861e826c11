/** The version of this package; a test holds it against package.json. */
export const clientVersion = "0.2.0";

/** The versions of the proxy that this package was made for: from the first on, below the second. */
export const serverVersions = { from: "0.1.0", below: "0.3.0" } as const;

/** A proxy that this package was not made for. Most calls may work all the same. */
export interface VersionMismatch {
  /** Which of the two is behind. */
  readonly behind: "client" | "server";
  readonly clientVersion: string;
  readonly serverVersion: string;
  /** A sentence for people. */
  readonly message: string;
}

/** Compares the version that a proxy says in `x-proxy-version`; undefined if it fits, or is none. */
export function versionMismatch(serverVersion: string): VersionMismatch | undefined {
  const server = numbersOf(serverVersion);
  if (server === undefined) return undefined;
  const { from, below } = serverVersions;
  const isOld = isBelow(server, numbersOf(from));
  if (!isOld && isBelow(server, numbersOf(below))) return undefined;
  const madeFor = `deepseek-proxy-client ${clientVersion} was made for proxies from ${from} on, below ${below}`;
  return isOld
    ? {
        behind: "server",
        clientVersion,
        serverVersion,
        message: `The proxy is ${serverVersion}, and ${madeFor}: update the proxy, or install an older client.`,
      }
    : {
        behind: "client",
        clientVersion,
        serverVersion,
        message: `The proxy is ${serverVersion}, and ${madeFor}: update the client.`,
      };
}

/** Wraps a fetch so that a mismatch is told once. Answers without the header say nothing. */
export function tellingMismatch(
  send: typeof globalThis.fetch,
  tell: (mismatch: VersionMismatch) => void,
): typeof globalThis.fetch {
  let isSettled = false;
  return async (...request) => {
    const response = await send(...request);
    const version = isSettled ? null : response.headers.get("x-proxy-version");
    if (version !== null) {
      isSettled = true;
      const mismatch = versionMismatch(version);
      if (mismatch !== undefined) tell(mismatch);
    }
    return response;
  };
}

/** Major, minor, patch; undefined if the text is no version. What follows them, such as `-rc.1`, is left out. */
function numbersOf(version: string): readonly number[] | undefined {
  const found = /^(\d{1,6})\.(\d{1,6})\.(\d{1,6})(?:[-+]|$)/.exec(version);
  return found?.slice(1).map(Number);
}

function isBelow(version: readonly number[], other: readonly number[] = []): boolean {
  for (const [index, number] of version.entries()) {
    const difference = number - (other[index] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}

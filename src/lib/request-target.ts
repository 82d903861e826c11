/**
 * The path of a request as the router sees it: without its query, decoded except for `%2F`, without repeated slashes
 * and without a trailing one. A path that can't be decoded stays as it is.
 *
 * @param target the target in the request line
 */
export function routedPath(target: string): string {
  const end = target.search(/[?#]/);
  let path = (end === -1 ? target : target.slice(0, end)).replace(/^https?:\/\/[^/]*/i, "");
  try {
    path = decodeURIComponent(path.replace(/%2f/gi, "%252F"));
  } catch {
    // Such a path never matches a route; it is only used to choose the format of the error.
  }
  return withoutExtraSlashes(path);
}

/** The target with its query, without the slashes in its path that the router ignores. */
export function plainTarget(target: string): string {
  const end = target.indexOf("?");
  if (end === -1) return withoutExtraSlashes(target);
  return withoutExtraSlashes(target.slice(0, end)) + target.slice(end);
}

const modelPaths = ["/models/", "/v1/models/", "/anthropic/v1/models/"];

/**
 * The target of a request for one model with its name as a single path segment: a name may contain slashes, and clients
 * write them unescaped. Other targets stay as they are.
 */
export function withModelInOneStep(target: string): string {
  if (!target.includes("/models/")) return target;
  const plain = plainTarget(target);
  const base = modelPaths.find((one) => plain.startsWith(one));
  if (base === undefined) return target;
  const end = plain.search(/[?#]/);
  const name = plain.slice(base.length, end === -1 ? undefined : end);
  return base + name.replaceAll("/", "%2F") + (end === -1 ? "" : plain.slice(end));
}

function withoutExtraSlashes(path: string): string {
  const single = path.replace(/\/{2,}/g, "/");
  return single.length > 1 && single.endsWith("/") ? single.slice(0, -1) : single;
}

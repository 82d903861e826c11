import { signal } from "@preact/signals";

/** The address below /panel, which is all the state that a view has: it can be sent to somebody else. */
interface Route {
  readonly path: string;
  readonly query: URLSearchParams;
}

const base = "/panel";

function here(): Route {
  const { pathname, search } = window.location;
  const path = pathname.startsWith(base) ? pathname.slice(base.length) : pathname;
  return { path: path === "" ? "/" : path, query: new URLSearchParams(search) };
}

export const route = signal<Route>(here());

/** The URL of a path of the panel. */
export function hrefOf(path: string): string {
  return base + path;
}

/** Goes to a path with its query, such as /users?search=al. */
export function navigate(path: string, { replace = false } = {}): void {
  if (replace) window.history.replaceState(null, "", hrefOf(path));
  else window.history.pushState(null, "", hrefOf(path));
  route.value = here();
}

/** Changes parts of the query; "" and undefined take one out. What is typed replaces the entry, so that Back leaves. */
export function setQuery(changes: Readonly<Record<string, string | undefined>>): void {
  const query = new URLSearchParams(route.value.query);
  for (const [key, value] of Object.entries(changes)) {
    if (value === undefined || value === "") query.delete(key);
    else query.set(key, value);
  }
  const text = query.toString();
  navigate(route.value.path + (text === "" ? "" : `?${text}`), { replace: true });
}

/** Takes clicks on links of the panel, and Back and Forward. */
export function startRouter(): void {
  window.addEventListener("popstate", () => {
    route.value = here();
  });
  document.addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const link = event.target instanceof Element ? event.target.closest("a") : null;
    if (link?.target !== "" || link.hasAttribute("download")) return;
    const url = new URL(link.href);
    if (url.origin !== window.location.origin || !url.pathname.startsWith(`${base}/`)) return;
    event.preventDefault();
    navigate(url.pathname.slice(base.length) + url.search);
    window.scrollTo(0, 0);
  });
}

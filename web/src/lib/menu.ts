import type { ComponentType } from "preact";
import type { Word } from "./i18n.ts";

/** What a page gets: the parts of the path behind its own. */
export interface PageProps {
  readonly rest: readonly string[];
}

interface Entry {
  /** The first part of the path. */
  readonly name: string;
  readonly word: Word;
  /** Behind g it leads there. */
  readonly letter: string;
  /** What one must be allowed to do to see it. */
  readonly needs: "use" | "audit" | "operate";
  readonly load: () => Promise<ComponentType<PageProps>>;
}

const mine = () => import("../pages/mine.ts");
const operator = () => import("../pages/operator.ts");

/** All pages: the user's own, then the operator's. The order is the menu's. */
export const entries: readonly Entry[] = [
  { name: "home", word: "home", letter: "h", needs: "use", load: async () => (await mine()).Home },
  { name: "chat", word: "chat", letter: "c", needs: "use", load: async () => (await mine()).Chat },
  { name: "keys", word: "keys", letter: "k", needs: "use", load: async () => (await mine()).Keys },
  { name: "usage", word: "usage", letter: "u", needs: "use", load: async () => (await mine()).MyUsage },
  { name: "setup", word: "setup", letter: "s", needs: "use", load: async () => (await mine()).Setup },
  { name: "redeem", word: "redeem", letter: "d", needs: "use", load: async () => (await mine()).Redeem },
  { name: "account", word: "account", letter: "a", needs: "use", load: async () => (await mine()).Account },
  {
    name: "overview",
    word: "overview",
    letter: "o",
    needs: "audit",
    load: async () => (await operator()).OverviewPage,
  },
  { name: "requests", word: "requests", letter: "r", needs: "audit", load: async () => (await operator()).Requests },
  { name: "users", word: "users", letter: "n", needs: "audit", load: async () => (await operator()).Users },
  { name: "groups", word: "groups", letter: "g", needs: "audit", load: async () => (await operator()).Groups },
  { name: "providers", word: "providers", letter: "p", needs: "audit", load: async () => (await operator()).Providers },
  { name: "reports", word: "reports", letter: "t", needs: "audit", load: async () => (await operator()).Reports },
  { name: "limits", word: "limits", letter: "l", needs: "audit", load: async () => (await operator()).Limits },
  { name: "prices", word: "prices", letter: "m", needs: "audit", load: async () => (await operator()).Prices },
  { name: "codes", word: "codes", letter: "x", needs: "audit", load: async () => (await operator()).Codes },
  { name: "events", word: "events", letter: "e", needs: "audit", load: async () => (await operator()).Events },
  { name: "config", word: "config", letter: "f", needs: "audit", load: async () => (await operator()).Config },
  { name: "audit", word: "audit", letter: "i", needs: "audit", load: async () => (await operator()).Audit },
  { name: "nodes", word: "nodes", letter: "b", needs: "audit", load: async () => (await operator()).Nodes },
];

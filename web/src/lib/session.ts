import { signal } from "@preact/signals";

/** What GET /panel/api/me says. */
export interface Me {
  readonly user: string;
  readonly roles: readonly string[];
  readonly tier: string;
  readonly groups: readonly string[];
  readonly group_owner_of: readonly string[];
  readonly must_change_password: boolean;
  /** Whether no provider has a key. */
  readonly simulated: boolean;
  readonly title: string;
  /** The zone of days in reports. */
  readonly timezone: string;
  /** For how many days usage is kept. */
  readonly usage_days: number;
  readonly version: string;
  readonly may: readonly string[];
}

/** Who is logged in; null: nobody. */
export const session = signal<Me | null>(null);

/** Whether the login covers the page because the session has ended. */
export const loginAsked = signal(false);

/** Whether nothing works before a second factor is set up. */
export const factorAsked = signal(false);

let waiting: (() => void)[] = [];

/** Tells the other tabs, which share the cookie, who is logged in now; null: nobody. */
const channel = new BroadcastChannel("panel-session");

/** Shows the login on top of the page; resolves once the same user has logged in again. */
export function askForLogin(): Promise<void> {
  loginAsked.value = true;
  return new Promise((resolve) => waiting.push(resolve));
}

/** Goes on with what waited for the login. */
export function loggedIn(me: Me): void {
  channel.postMessage(me);
  follow(me);
}

export function loggedOut(): void {
  channel.postMessage(null);
  session.value = null;
  loginAsked.value = false;
  factorAsked.value = false;
}

/** Follows what happens in other tabs. */
export function startSession(): void {
  channel.onmessage = ({ data }: MessageEvent<Me | null>) => {
    if (data !== null) follow(data);
    // What was typed here stays, under the login.
    else if (session.value !== null) loginAsked.value = true;
  };
}

function follow(me: Me): void {
  if (session.value !== null && session.value.user !== me.user) {
    // What was shown, typed and waits here is another person's, and must not be sent as this one's.
    window.location.reload();
    return;
  }
  session.value = me;
  loginAsked.value = false;
  const resolves = waiting;
  waiting = [];
  for (const resolve of resolves) resolve();
}

export function may(what: string): boolean {
  return session.value?.may.includes(what) === true;
}

import { describe, expect, it } from "vitest";
import { createActiveUsers } from "../../src/events/active-users.ts";
import { chatFinished, loginFailed } from "../support/events.ts";
import { createManualClock } from "../support/manual-clock.ts";

const startMs = Date.UTC(2026, 10, 22, 10);

function useActiveUsers(maxUsers = 100) {
  const clock = createManualClock(startMs);
  const active = createActiveUsers({ clock, windowMs: 60_000, maxUsers });
  return {
    clock,
    active,
    chat: (user: string, code = "ok") => {
      active.sink(chatFinished({ user, code, at: clock.now() }));
    },
    logIn: (user: string) => {
      active.sink({ type: "login.succeeded", at: clock.now(), traceId: "t", ip: "192.0.2.1", user });
    },
    users: () => active.list().map(({ user }) => user),
  };
}

describe("active users", () => {
  it("are counted since they became active, the latest first", () => {
    const { clock, active, chat, logIn } = useActiveUsers();
    logIn("alice");
    chat("bob");
    clock.advance(1000);
    chat("alice");
    chat("alice", "upstream_error");
    expect(active.list()).toEqual([
      { user: "alice", since: startMs, lastSeenAt: startMs + 1000, chats: 2, failed: 1, logins: 1 },
      { user: "bob", since: startMs, lastSeenAt: startMs, chats: 1, failed: 0, logins: 0 },
    ]);
  });

  it("are no longer active after a window of silence, and begin anew after it", () => {
    const { clock, active, chat, users } = useActiveUsers();
    chat("alice");
    clock.advance(30_000);
    chat("bob");
    clock.advance(30_000);
    expect(users()).toEqual(["bob"]);
    chat("alice");
    expect(active.list()[0]).toMatchObject({ user: "alice", since: startMs + 60_000, chats: 1 });
  });

  it("are not those as whom somebody fails to log in", () => {
    const { active, users } = useActiveUsers();
    active.sink(loginFailed({ at: startMs }));
    expect(users()).toEqual([]);
  });

  it("stay bounded, the latest remembered", () => {
    const { active, chat } = useActiveUsers(10);
    for (let index = 0; index < 1000; index += 1) chat(`user${index}`);
    const users = active.list().map(({ user }) => user);
    expect(users.length).toBeLessThanOrEqual(10);
    expect(users).toEqual(expect.arrayContaining(["user995", "user999"]));
  });
});

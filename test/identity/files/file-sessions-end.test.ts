import { describe, expect, it } from "vitest";
import { createFaultyFiles } from "../../support/faulty-files.ts";
import { tempDir } from "../../support/temp-dir.ts";
import { bob, laptop, refusal, figures, useSessions } from "../session-support.ts";

describe("ending sessions", () => {
  it("ends one, for good", async () => {
    const test = await useSessions(tempDir());
    const first = await test.sessions.open(bob, laptop);
    const second = await test.sessions.open(bob, laptop);
    expect(await test.sessions.end("bob", first.sessionId)).toBe(true);
    expect(test.sessions.isLive(first.sessionId)).toBe(false);
    expect(await test.sessions.end("bob", first.sessionId)).toBe(false);
    await test.restart();
    expect((await test.sessions.list("bob")).map(({ id }) => id)).toEqual([second.sessionId]);
  });

  it("of somebody else is not possible", async () => {
    const { sessions } = await useSessions(tempDir());
    const { sessionId } = await sessions.open(bob, laptop);
    expect(await sessions.end("eve", sessionId)).toBe(false);
    expect(sessions.isLive(sessionId)).toBe(true);
  });

  it("ends all, and a refresh that is being written at that moment with them", async () => {
    const test = await useSessions(tempDir());
    const { refreshToken } = await test.sessions.open(bob, laptop);
    await test.sessions.open(bob, laptop);
    const refreshing = test.sessions.refresh(refreshToken, laptop);
    const failed = expect(refreshing).rejects.toEqual(refusal("invalid_token"));
    expect(await test.sessions.endAll("bob")).toBe(2);
    await failed;
    await test.restart();
    expect(await test.sessions.list("bob")).toEqual([]);
  });

  it("holds at once where it can't be written, says so, and is written at the close", async () => {
    const fileOps = createFaultyFiles();
    const test = await useSessions(tempDir(), { fileOps });
    const { sessionId } = await test.sessions.open(bob, laptop);
    fileOps.fail("rename", "EIO");
    await expect(test.sessions.end("bob", sessionId)).rejects.toEqual(refusal("storage_unavailable"));
    expect(test.sessions.isLive(sessionId)).toBe(false);
    await test.sessions.close();
    await test.restart();
    expect(test.sessions.isLive(sessionId)).toBe(false);
  });

  it("end with any of their tokens, current or spent", async () => {
    const { sessions } = await useSessions(tempDir());
    const { refreshToken, sessionId } = await sessions.open(bob, laptop);
    await sessions.refresh(refreshToken, laptop);
    expect(await sessions.endByToken("dsr_nothing")).toBeUndefined();
    expect(await sessions.endByToken(refreshToken)).toEqual({ user: "bob", id: sessionId });
    expect(sessions.isLive(sessionId)).toBe(false);
    expect(await sessions.endByToken(refreshToken)).toBeUndefined();
  });
});

describe("the bound of a user's sessions", () => {
  it("ends the oldest of the same program first, so that a script crowds out itself", async () => {
    const { sessions, clock } = await useSessions(tempDir(), { figures: { ...figures, maxSessions: 3 } });
    const browser = await sessions.open(bob, { ...laptop, client: "browser" });
    const scripts: string[] = [];
    for (let i = 0; i < 5; i++) {
      clock.advance(1000);
      scripts.push((await sessions.open(bob, { ...laptop, client: "script" })).sessionId);
    }
    const alive = (await sessions.list("bob")).map(({ id }) => id);
    expect(alive).toEqual([scripts[4], scripts[3], browser.sessionId]);
  });

  it("ends the one unused for the longest time where all are different", async () => {
    const { sessions, clock } = await useSessions(tempDir(), { figures: { ...figures, maxSessions: 2 } });
    const used = await sessions.open(bob, { ...laptop, client: "a" });
    clock.advance(1000);
    const unused = await sessions.open(bob, { ...laptop, client: "b" });
    clock.advance(1000);
    await sessions.refresh(used.refreshToken, laptop);
    await sessions.open(bob, { ...laptop, client: "c" });
    expect([used, unused].map(({ sessionId }) => sessions.isLive(sessionId))).toEqual([true, false]);
  });
});

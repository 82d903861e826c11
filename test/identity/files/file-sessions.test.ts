import { stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { eventually } from "../../support/eventually.ts";
import { createFaultyFiles } from "../../support/faulty-files.ts";
import { tempDir } from "../../support/temp-dir.ts";
import { bob, day, laptop, refusal, useSessions } from "../session-support.ts";

const leeway = 10_000;

describe("a refresh token", () => {
  it("brings the next one, and so on", async () => {
    const { sessions, clock } = await useSessions(tempDir());
    let { refreshToken, sessionId } = await sessions.open(bob, laptop);
    const seen = new Set([refreshToken]);
    for (let i = 0; i < 20; i++) {
      clock.advance(day);
      const next = await sessions.refresh(refreshToken, laptop);
      expect(next).toMatchObject({ sessionId, account: bob });
      ({ refreshToken, sessionId } = next);
      expect(seen.has(refreshToken)).toBe(false);
      seen.add(refreshToken);
    }
  });

  it("that 50 exchange at once gives all of them the same successor, and it works", async () => {
    const { sessions, events } = await useSessions(tempDir());
    const { refreshToken } = await sessions.open(bob, laptop);
    const all = await Promise.all(Array.from({ length: 50 }, () => sessions.refresh(refreshToken, laptop)));
    const successors = [...new Set(all.map((grant) => grant.refreshToken))];
    expect(successors).toHaveLength(1);
    await sessions.refresh(successors[0] ?? "", laptop);
    expect(await sessions.list("bob")).toHaveLength(1);
    expect(events).toEqual([]);
  });

  it("that was exchanged leads to the one that is good now, until the leeway is over", async () => {
    const { sessions, clock } = await useSessions(tempDir());
    const first = await sessions.open(bob, laptop);
    const second = await sessions.refresh(first.refreshToken, laptop);
    clock.advance(leeway - 1);
    const third = await sessions.refresh(second.refreshToken, laptop);
    expect((await sessions.refresh(first.refreshToken, laptop)).refreshToken).toBe(third.refreshToken);
    expect((await sessions.refresh(second.refreshToken, laptop)).refreshToken).toBe(third.refreshToken);
  });

  it("that comes again after the leeway ends the session for thief and owner, and says so in an event", async () => {
    const test = await useSessions(tempDir());
    const { sessions, clock, events } = test;
    const { refreshToken: stolen, sessionId } = await sessions.open(bob, laptop);
    const { refreshToken } = await sessions.refresh(stolen, laptop);
    clock.advance(leeway);
    await expect(sessions.refresh(stolen, { ...laptop, ip: "203.0.113.9" })).rejects.toEqual(refusal("invalid_token"));
    expect(sessions.isLive(sessionId)).toBe(false);
    await expect(sessions.refresh(refreshToken, laptop)).rejects.toEqual(refusal("invalid_token"));
    expect(events).toMatchObject([
      { type: "session.reuse_detected", user: "bob", subject: sessionId, ip: "203.0.113.9", traceId: "trace" },
    ]);
    await test.restart();
    expect(test.sessions.isLive(sessionId)).toBe(false);
  });

  it("ends no session where it was invented", async () => {
    const { sessions, events } = await useSessions(tempDir());
    const { refreshToken, sessionId } = await sessions.open(bob, laptop);
    const otherFamily = `dsr_${"A".repeat(22)}${refreshToken.slice(26)}`;
    for (const made of ["", "x", sessionId, otherFamily, `${refreshToken}A`, refreshToken.slice(0, -1)]) {
      await expect(sessions.refresh(made, laptop)).rejects.toEqual(refusal("invalid_token"));
    }
    expect(sessions.isLive(sessionId)).toBe(true);
    expect(events).toEqual([]);
  });

  it("ends when it is not used, and the session ends however much it is used", async () => {
    const { sessions, clock } = await useSessions(tempDir());
    const idle = await sessions.open(bob, laptop);
    const busy = await sessions.open(bob, { ...laptop, client: "phone" });
    expect(idle.refreshExpiresAt).toBe(clock.now() + 7 * day);
    let { refreshToken } = busy;
    for (let i = 0; i < 5; i++) {
      clock.advance(6 * day - 1);
      const next = await sessions.refresh(refreshToken, laptop);
      expect(next.refreshExpiresAt).toBeLessThanOrEqual(busy.refreshExpiresAt + 23 * day);
      ({ refreshToken } = next);
    }
    clock.advance(5);
    await expect(sessions.refresh(refreshToken, laptop)).rejects.toEqual(refusal("token_expired"));
    await expect(sessions.refresh(idle.refreshToken, laptop)).rejects.toEqual(refusal("token_expired"));
    expect(await sessions.list("bob")).toEqual([]);
  });

  it("is refused after a new password, and for good", async () => {
    const test = await useSessions(tempDir());
    const { refreshToken } = await test.sessions.open(bob, laptop);
    test.account = { ...bob, token_version: 2 };
    expect(await test.sessions.list("bob")).toEqual([]);
    await expect(test.sessions.refresh(refreshToken, laptop)).rejects.toEqual(refusal("invalid_token"));
  });

  it("of a banned user is refused, and works again after the ban", async () => {
    const test = await useSessions(tempDir());
    const { refreshToken } = await test.sessions.open(bob, laptop);
    test.account = { ...bob, banned_until: new Date(test.clock.now() + 60_000) };
    await expect(test.sessions.refresh(refreshToken, laptop)).rejects.toEqual(refusal("account_disabled"));
    test.clock.advance(60_000);
    await test.sessions.refresh(refreshToken, laptop);
  });
});

describe("sessions on disk", () => {
  it("go on after a restart, without anything in the file that could be used", async () => {
    const test = await useSessions(tempDir());
    const first = await test.sessions.open(bob, laptop);
    const second = await test.sessions.refresh(first.refreshToken, laptop);
    const text = await test.file();
    for (const token of [first.refreshToken, second.refreshToken]) {
      expect(text).not.toContain(token.slice(4, 26));
      expect(text).not.toContain(token.slice(26));
    }
    await test.restart();
    expect(test.sessions.isLive(first.sessionId)).toBe(true);
    await test.sessions.refresh(second.refreshToken, laptop);
  });

  it("are readable by their owner alone", async () => {
    const dir = tempDir();
    const { sessions } = await useSessions(dir);
    await sessions.open(bob, laptop);
    expect((await stat(join(dir, "bob.sessions.toml"))).mode & 0o777).toBe(0o600);
  });

  it("give the same successor again where a crash has swallowed the answer, however long the restart took", async () => {
    const test = await useSessions(tempDir());
    const { refreshToken } = await test.sessions.open(bob, laptop);
    const lost = await test.sessions.refresh(refreshToken, laptop);
    test.clock.advance(60_000);
    await test.restart();
    expect((await test.sessions.refresh(refreshToken, laptop)).refreshToken).toBe(lost.refreshToken);
    test.clock.advance(leeway);
    await expect(test.sessions.refresh(refreshToken, laptop)).rejects.toEqual(refusal("invalid_token"));
  });

  it("keep a token good where its successor could not be written", async () => {
    for (const kind of ["open", "write", "sync", "rename"] as const) {
      const fileOps = createFaultyFiles();
      const test = await useSessions(tempDir(), { fileOps });
      const { refreshToken } = await test.sessions.open(bob, laptop);
      fileOps.fail(kind, "ENOSPC");
      await expect(test.sessions.refresh(refreshToken, laptop)).rejects.toEqual(refusal("storage_unavailable"));
      test.clock.advance(leeway);
      const next = await test.sessions.refresh(refreshToken, laptop);
      await test.restart();
      await test.sessions.refresh(next.refreshToken, laptop);
      expect(test.events).toEqual([]);
    }
  });

  it("are not needed to log in: without the disk a session lasts until the restart, or until it can be written", async () => {
    const fileOps = createFaultyFiles();
    const test = await useSessions(tempDir(), { fileOps });
    fileOps.fail("open", "ENOSPC");
    const { sessionId } = await test.sessions.open(bob, laptop);
    expect(test.sessions.isLive(sessionId)).toBe(true);
    expect(test.log.lines).toMatchObject([{ level: "error", facts: { user: "bob" } }]);
    await test.sessions.close();
    await test.restart();
    expect(test.sessions.isLive(sessionId)).toBe(true);
  });

  it("that ended while the disk was full are written once it has room, and stay ended after a kill", async () => {
    const fileOps = createFaultyFiles();
    const test = await useSessions(tempDir(), { fileOps, retryMs: 5 });
    const { sessionId } = await test.sessions.open(bob, laptop);
    fileOps.fail("open", "ENOSPC", 1, 3);
    await expect(test.sessions.end("bob", sessionId)).rejects.toEqual(refusal("storage_unavailable"));
    await eventually(async () => {
      expect(await test.file()).not.toContain(sessionId);
    });
    expect(test.log.lines).toHaveLength(3);
    await test.sessions.close();
    await test.restart();
    expect(test.sessions.isLive(sessionId)).toBe(false);
  });

  it("that can't be read are left out and named in the log, without what stands in the file", async () => {
    const dir = tempDir();
    await writeFile(join(dir, "bob.sessions.toml"), 'sessions = "planted-text');
    await writeFile(join(dir, "ann.sessions.toml"), "[[sessions]]\nid = 'planted-text'");
    const { sessions, log } = await useSessions(dir);
    expect(log.lines.map(({ facts }) => facts.file).sort()).toEqual(["ann.sessions.toml", "bob.sessions.toml"]);
    expect(JSON.stringify(log.lines)).not.toContain("planted");
    await sessions.open(bob, laptop);
    expect(await sessions.list("bob")).toHaveLength(1);
  });

  it("are gone from it once they have expired", async () => {
    const test = await useSessions(tempDir());
    const { sessionId } = await test.sessions.open(bob, laptop);
    test.clock.advance(7 * day);
    await test.sessions.open(bob, laptop);
    expect(await test.file()).not.toContain(sessionId);
  });
});

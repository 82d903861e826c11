import { expect, it, onTestFinished } from "vitest";
import { createGroupAdmin, groupEtag } from "../../../src/admin/group-admin.ts";
import { createUserAdmin } from "../../../src/admin/user-admin.ts";
import type { ProxyEvent } from "../../../src/events/catalogue.ts";
import type { Account } from "../../../src/identity/account-schema.ts";
import type { InvitationBatch } from "../../../src/identity/codes.ts";
import { createPointersOf } from "../../../src/identity/redis/document-pointers.ts";
import type { RedisIdentityOptions } from "../../../src/identity/redis/open-redis-identity.ts";
import { RedisUnavailableError, type Redis } from "../../../src/lib/redis/redis.ts";
import { attempt, refusalOf } from "../../support/attempt.ts";
import { eventually } from "../../support/eventually.ts";
import { startFaultProxy } from "../../support/fault-proxy.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { deaf, documentsOf, nodeOver, seed } from "../../support/redis-identity.ts";
import { describeWithRedis, newPrefix, useRedis } from "../../support/redis-server.ts";
import { laptop, refusal } from "../session-support.ts";

const bob = { username: "bob", password: "correct horse", quota_tier: "basic" };
/** How long what another process has changed may be trusted, in ms. */
const ageMs = 900;

describeWithRedis("two processes over one Redis", () => {
  const { open, server } = useRedis();

  /** The second may have its own way to Redis. */
  async function useNodes(options: Partial<RedisIdentityOptions> = {}, way = (redis: Redis): Redis => redis) {
    const keyPrefix = newPrefix();
    const redis = await open({ keyPrefix });
    await seed(redis);
    const clock = createManualClock(Date.now());
    const first = await nodeOver(redis, { clock, ...options });
    const second = await nodeOver(way(await open({ keyPrefix })), { clock, ...options });
    return { redis, keyPrefix, clock, first, second };
  }

  async function accountOf({ first }: { first: Awaited<ReturnType<typeof nodeOver>> }): Promise<Account> {
    return first.users.create(bob);
  }

  it("leave a batch of codes alone that can't be read, and serve the others", async () => {
    const { redis, first } = await useNodes();
    const batch: InvitationBatch = {
      id: "0000000a",
      name: "x",
      created_at: 0,
      by: "root",
      expires_at: null,
      group: null,
      tier: null,
      max_uses: 1,
      kind: "invitation",
      note: "",
      codes: [],
    };
    await first.codes.change(batch.id, () => batch);
    const text = JSON.stringify({ ...batch, id: "0000000b", max_uses: "1" });
    await documentsOf(redis).put({ kind: "codes", name: "0000000b", text, expected: "new" });
    expect(await first.codes.ids()).toEqual(["0000000a", "0000000b"]);
    expect([await first.codes.get("0000000a"), await first.codes.get("0000000b")]).toEqual([batch, undefined]);
    expect((await refusalOf(() => first.codes.change("0000000b", () => batch))).code).toBe("conflict");
  });

  it("see what the other has changed", async () => {
    const nodes = await useNodes();
    const { first, second } = nodes;
    const account = await accountOf(nodes);
    const { key, text } = await first.apiKeys.create(account, { name: "a" });
    const { sessionId } = await first.sessions.open(account, laptop);
    await attempt(() => second.apiKeys.find(text));
    expect(await second.sessions.isLive(sessionId)).toBe(true);
    expect(await second.users.get("bob")).toEqual(account);
    await first.users.update("bob", { is_active: false });
    await first.apiKeys.revoke("bob", key.id);
    await first.sessions.end("bob", sessionId);
    await eventually(async () => {
      expect(await second.users.get("bob")).toMatchObject({ is_active: false });
      await expect(attempt(() => second.apiKeys.find(text))).rejects.toEqual(refusal("invalid_api_key"));
      expect(await second.sessions.isLive(sessionId)).toBe(false);
    });
  });

  it("see it within a second also where no change is reported", async () => {
    const nodes = await useNodes({}, deaf);
    const { first, second, clock } = nodes;
    const account = await accountOf(nodes);
    const { key, text } = await first.apiKeys.create(account, { name: "a" });
    const { sessionId } = await first.sessions.open(account, laptop);
    await attempt(() => second.apiKeys.find(text));
    await second.sessions.isLive(sessionId);
    await second.users.get("bob");
    await first.users.update("bob", { is_active: false });
    await first.apiKeys.revoke("bob", key.id);
    await first.sessions.end("bob", sessionId);
    clock.advance(ageMs);
    expect(await second.users.get("bob")).toMatchObject({ is_active: false });
    await expect(attempt(() => second.apiKeys.find(text))).rejects.toEqual(refusal("invalid_api_key"));
    expect(await second.sessions.isLive(sessionId)).toBe(false);
  });

  it("accept at once what the other has just made, whatever they remember", async () => {
    const nodes = await useNodes({}, deaf);
    const { first, second } = nodes;
    const account = await accountOf(nodes);
    const older = await first.apiKeys.create(account, { name: "a" });
    await attempt(() => second.apiKeys.find(older.text));
    const { sessionId: before } = await first.sessions.open(account, laptop);
    await second.sessions.isLive(before);
    const { text } = await first.apiKeys.create(account, { name: "b" });
    const { sessionId, refreshToken } = await first.sessions.open(account, laptop);
    expect(await attempt(() => second.apiKeys.find(text))).toMatchObject({ key: { user: "bob", name: "b" } });
    expect(await second.sessions.isLive(sessionId)).toBe(true);
    // Also where what is remembered of the account has an older token_version.
    await second.users.get("bob");
    const changed = await first.users.update("bob", { password: "another one" });
    expect(changed.token_version).toBeGreaterThan(account.token_version);
    const renewed = await first.sessions.open(changed, laptop);
    expect(await second.sessions.refresh(renewed.refreshToken, laptop)).toMatchObject({ account: changed });
    await expect(second.sessions.refresh(refreshToken, laptop)).rejects.toEqual(refusal("invalid_token"));
  });

  it("lose no change of one user or group that both make at once", async () => {
    const nodes = await useNodes();
    await accountOf(nodes);
    await nodes.first.groups.create("alpha", {});
    const names = Array.from({ length: 12 }, (_, index) => `u${index}`);
    await Promise.all(
      names.map(async (name, index) => {
        const { users, groups } = index % 2 === 0 ? nodes.first : nodes.second;
        await users.update("bob", ({ metadata }) => ({ metadata: { ...metadata, [name]: "x" } }));
        await groups.change("alpha", ({ listed }) => ({ members: [...listed, name] }));
      }),
    );
    await eventually(async () => {
      for (const { users, groups } of [nodes.first, nodes.second]) {
        expect(Object.keys((await users.get("bob"))?.metadata ?? {}).sort()).toEqual([...names].sort());
        expect((await groups.get("alpha"))?.members).toEqual([...names].sort());
      }
    });
  });

  it("give a refresh token that both get at once the same successor, and end the session of one that comes late", async () => {
    const events: ProxyEvent[] = [];
    const clock = createManualClock(Date.now());
    const nodes = await useNodes({ clock, now: () => clock.now(), emit: (event) => events.push(event) });
    const { first, second } = nodes;
    const account = await accountOf(nodes);
    const { refreshToken, sessionId } = await first.sessions.open(account, laptop);
    const grants = await Promise.all(
      Array.from({ length: 20 }, async (_, index) =>
        (index % 2 === 0 ? first : second).sessions.refresh(refreshToken, laptop),
      ),
    );
    const successors = [...new Set(grants.map((grant) => grant.refreshToken))];
    expect(successors).toHaveLength(1);
    clock.advance(60_000);
    const late = await Promise.allSettled(
      [first, second].map(async (node) => node.sessions.refresh(refreshToken, laptop)),
    );
    expect(late.map((one) => one.status === "rejected" && one.reason)).toEqual([
      refusal("invalid_token"),
      refusal("invalid_token"),
    ]);
    for (const { sessions } of [first, second]) {
      await expect(sessions.refresh(successors[0] ?? "", laptop)).rejects.toEqual(refusal("invalid_token"));
      await eventually(async () => {
        expect(await sessions.isLive(sessionId)).toBe(false);
      });
    }
    expect(events.filter(({ type }) => type === "session.reuse_detected")).toHaveLength(1);
  });

  it("let no more guesses and no more of one nonce through than one process does", async () => {
    const { first, second } = await useNodes({ clock: createManualClock(Date.now()) });
    const nodes = [first, second];
    const guesses = await Promise.allSettled(
      Array.from({ length: 40 }, async (_, index) =>
        (nodes[index % 2] ?? first).loginGuard.start({
          user: "bob",
          known: true,
          ip: `198.51.100.${index}`,
          traceId: "t",
        }),
      ),
    );
    expect(guesses.filter(({ status }) => status === "fulfilled")).toHaveLength(5);
    const at = Math.floor(Date.now() / 1000) + 1;
    const uses = await Promise.all(
      Array.from({ length: 20 }, async (_, index) => (nodes[index % 2] ?? first).nonces.use("k1", "nonce", at)),
    );
    expect(uses.filter((accepted) => accepted)).toHaveLength(1);
  });

  it("see the groups that the other has made, and none takes the name of one that is being removed", async () => {
    const { first, second } = await useNodes();
    const seen: string[] = [];
    second.groups.onChange(() =>
      seen.push(
        second.groups
          .latest()
          .map(({ name }) => name)
          .join(","),
      ),
    );
    await first.groups.create("alpha", { members: ["bob"] });
    await eventually(() => {
      expect(seen.at(-1)).toBe("alpha");
    });
    await first.groups.remove("alpha", async () => {
      await expect(attempt(() => second.groups.create("alpha", {}))).rejects.toEqual(refusal("conflict"));
    });
    await second.groups.create("alpha", { members: ["eve"] });
    expect((await second.groups.ofUser("eve")).map(({ name }) => name)).toEqual(["alpha"]);
  });

  it("end the removal of a group that has stopped half way, under its ETag as well", async () => {
    const { first, second, clock } = await useNodes();
    const stopped = await first.groups.create("alpha", { members: ["bob"] });
    await new Promise<void>((hasBegun) => {
      const standsStill = (): Promise<never> =>
        new Promise((_, reject) => {
          hasBegun();
          onTestFinished(() => {
            reject(new Error("the end"));
          });
        });
      attempt(() => first.groups.remove("alpha", standsStill)).catch(() => undefined);
    });
    const lines: unknown[] = [];
    const check = () => Promise.resolve();
    const audit = { check, record: (_actor: unknown, line: unknown) => Promise.resolve(void lines.push(line)) };
    const config = () => ({ quota: { currency: "CNY" }, models: { prices: [] } });
    const userAdmin = createUserAdmin({
      ...second,
      audit,
      tierNames: () => ["basic"],
      stepNames: () => [],
      config,
      clock,
    });
    const admin = createGroupAdmin({ ...second, userAdmin, audit, emit: () => undefined, config, clock });
    const boss = { by: "boss", ip: "", traceId: "" };
    expect((await refusalOf(() => admin.create(boss, "alpha", {}))).code).toBe("conflict");
    expect((await refusalOf(() => admin.remove(boss, "alpha", () => false))).code).toBe("precondition_failed");
    await admin.remove(boss, "alpha", (etag) => etag === groupEtag(stopped));
    expect(lines).toMatchObject([{ action: "group.removed", subject: "alpha", before: { members: ["bob"] } }]);
    expect((await refusalOf(() => admin.remove(boss, "alpha"))).code).toBe("not_found");
    expect(await admin.create(boss, "alpha", {})).toMatchObject({ name: "alpha", members: [] });
  });

  it("trust nothing older while Redis does not answer, and go on after", async () => {
    const nodes = await useNodes();
    const { first, clock, keyPrefix } = nodes;
    await accountOf(nodes);
    const proxy = await startFaultProxy(server().url);
    onTestFinished(() => proxy.close());
    const node = await nodeOver(await open({ keyPrefix, url: proxy.url, timeoutMs: 300 }), { clock });
    expect(await node.users.get("bob")).toMatchObject({ is_active: true });
    proxy.up.blackhole = true;
    await first.users.update("bob", { is_active: false });
    clock.advance(ageMs);
    await expect(attempt(() => node.users.get("bob"))).rejects.toBeInstanceOf(RedisUnavailableError);
    proxy.up.blackhole = false;
    proxy.resetAll();
    await eventually(async () => {
      expect(await node.users.get("bob")).toMatchObject({ is_active: false });
    });
  });

  it("know nobody, and make nobody, while a tag has lost what was stored", async () => {
    const nodes = await useNodes();
    const { redis, second, clock } = nodes;
    await accountOf(nodes);
    await second.users.get("bob");
    await Promise.all(
      redis.tags.map((tag) => redis.send(redis.keyIn(tag, "logseq"), ["HDEL", redis.keyIn(tag, "logseq"), "epoch"])),
    );
    clock.advance(ageMs);
    for (const call of [
      () => second.users.get("bob"),
      () => second.users.get("eve"),
      () => second.users.names(),
      () => second.users.create({ ...bob, username: "eve" }),
    ]) {
      await expect(attempt<unknown>(call)).rejects.toBeInstanceOf(RedisUnavailableError);
    }
  });

  it("wait while a third one copies what they have, and in their start while it is put together", async () => {
    let isStarting = false;
    const nodes = await useNodes({ waitsForMending: () => isStarting });
    const { redis, first, second, clock } = nodes;
    await accountOf(nodes);
    const keep = (how: string | number): Promise<unknown> =>
      Promise.all(
        redis.tags.map((tag) => redis.call("log_fence", [redis.keyIn(tag, "mend"), redis.keyIn(tag, "logseq")], [how])),
      );
    clock.advance(ageMs);
    await keep(300);
    expect((await second.users.get("bob"))?.username).toBe("bob");
    await keep(300);
    expect((await first.users.create({ ...bob, username: "eve" })).username).toBe("eve");

    await keep("mend");
    clock.advance(ageMs);
    await expect(attempt<unknown>(() => second.users.get("bob"))).rejects.toBeInstanceOf(RedisUnavailableError);
    isStarting = true;
    let isOver = false;
    const found = Promise.resolve(second.users.get("bob")).finally(() => (isOver = true));
    await redis.call("now", [redis.keyIn("00", "layout")], []);
    expect(isOver).toBe(false);
    for (const tag of redis.tags) await redis.send("", ["HDEL", redis.keyIn(tag, "logseq"), "fenced"]);
    expect((await found)?.username).toBe("bob");
  });

  it("find again whose sessions and keys are, from the documents alone", async () => {
    const nodes = await useNodes();
    const { first, redis, keyPrefix, clock } = nodes;
    const account = await accountOf(nodes);
    const { text } = await first.apiKeys.create(account, { name: "a" });
    const { sessionId, refreshToken } = await first.sessions.open(account, laptop);
    const pointersOf = createPointersOf(redis);
    const pointers = [];
    for (const kind of ["keys", "sessions"] as const) {
      const { document } = await documentsOf(redis).read(kind, "bob");
      pointers.push(...pointersOf({ kind, name: "bob", text: document?.text ?? "" }));
    }
    expect(pointers).toHaveLength(3);
    for (const { key } of pointers) await redis.send(key, ["DEL", key]);
    const empty = await nodeOver(await open({ keyPrefix }), { clock });
    await expect(attempt(() => empty.apiKeys.find(text))).rejects.toEqual(refusal("invalid_api_key"));
    for (const { key, user } of pointers) await redis.send(key, ["SET", key, user]);
    const restored = await nodeOver(await open({ keyPrefix }), { clock });
    expect(await attempt(() => restored.apiKeys.find(text))).toMatchObject({ key: { user: "bob" } });
    expect(await restored.sessions.isLive(sessionId)).toBe(true);
    await restored.sessions.refresh(refreshToken, laptop);
  });

  it("put no account into force that can't be parsed, and show it as a problem", async () => {
    const nodes = await useNodes();
    const { first, second, redis } = nodes;
    await accountOf(nodes);
    const { document } = await documentsOf(redis).read("users", "bob");
    const text = (document?.text ?? "").replace("basic", "gold");
    await documentsOf(redis).put({ kind: "users", name: "bob", text, expected: "any" });
    await eventually(async () => {
      expect(await second.users.get("bob")).toBeUndefined();
    });
    expect(await second.users.problems()).toMatchObject([{ file: "bob.toml" }]);
    await expect(attempt(() => first.users.update("bob", {}))).rejects.toEqual(refusal("conflict"));
  });
});

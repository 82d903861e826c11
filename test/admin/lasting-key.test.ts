import { randomUUID } from "node:crypto";
import { describe, expect, it, onTestFinished } from "vitest";
import { createLastingKey } from "../../src/admin/group-admin.ts";
import { openFileApiKeys } from "../../src/identity/files/file-api-keys.ts";
import { accountOf, putUser, useStore, useUsersDir } from "../identity/support.ts";
import { createCapturedLog } from "../support/captured-log.ts";
import { createManualClock } from "../support/manual-clock.ts";

describe("a key", () => {
  it.each([
    ["nobody", undefined],
    ["a new user", new Date("2026-11-22T00:00:01Z")],
  ])("of a user who is removed while it is made is gone where %s has the name then", async (_who, since) => {
    const usersDir = await useUsersDir();
    await putUser(usersDir, "carl", "created_at = 2026-11-21T00:00:00Z\n");
    const { store } = await useStore(usersDir);
    const clock = createManualClock(Date.UTC(2026, 10, 22));
    const apiKeys = await openFileApiKeys({ usersDir, clock, log: createCapturedLog(), newId: randomUUID });
    onTestFinished(() => apiKeys.close());
    const account = accountOf(store, "carl");
    const users = { get: () => (since === undefined ? undefined : { ...account, created_at: since }) };
    const config = () => ({ quota: { currency: "CNY" }, models: { prices: [] } });
    const options = { users, groups: { get: () => undefined }, apiKeys, config };
    const making = createLastingKey(options, account, { name: "late" });
    await expect(making).rejects.toMatchObject({ code: "conflict" });
    expect(apiKeys.list("carl")).toEqual([]);
  });
});

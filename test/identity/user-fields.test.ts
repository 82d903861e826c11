import { describe, expect, it } from "vitest";
import { z } from "zod";
import {
  fileShape,
  optionFields,
  patchShape,
  requestShape,
  responseShape,
  settableNames,
  viewOf,
} from "../../src/identity/user-fields.ts";

const secrets = ["password", "password_hash", "token_version", "totp_secret", "totp_last_step", "recovery_codes"];

describe("the fields of a user", () => {
  it("are shown, or secret", () => {
    expect(Object.keys(fileShape).sort()).toEqual([...Object.keys(responseShape), ...secrets].sort());
    expect(Object.keys(responseShape).filter((name) => secrets.includes(name))).toEqual([]);
  });

  it("that can be set have no secret among them, nor what only the proxy sets", () => {
    expect(Object.keys(requestShape)).toEqual(settableNames);
    expect(Object.keys(patchShape)).toEqual(settableNames);
    const kept = Object.keys(responseShape).filter((name) => !Object.hasOwn(requestShape, name));
    expect(kept).toEqual(["username", "must_change_password", "created_at", "invitation"]);
    expect(optionFields).toEqual({
      tier: "quota_tier",
      role: "roles",
      "active-from": "active_from",
      "expires-at": "expires_at",
      "max-parallel": "max_parallel",
    });
  });

  it("are all removable but the tier", () => {
    const kept = settableNames.filter((name) => !patchShape[name].safeParse(null).success);
    expect(kept).toEqual(["quota_tier"]);
  });

  it("are shown as the responses' schema says, with defaults where the file has none, and without secrets", () => {
    const schema = z.strictObject(fileShape);
    const file = schema.parse({ username: "alice", password: "a secret word", quota_tier: "basic", token_version: 77 });
    const view = viewOf(file);
    expect(z.strictObject(responseShape).parse(view)).toEqual(view);
    expect(view).toMatchObject({ roles: ["user"], is_active: true, max_parallel: null, grants: [], metadata: {} });
    expect(JSON.stringify(view)).not.toMatch(/secret|77/);
  });

  it.each([
    ["m=19456,t=2,p=1", true],
    ["m=1048576,t=4,p=8", true],
    ["m=8,t=1,p=1", true],
    ["m=4294967295,t=1,p=1", false],
    ["m=1048577,t=1,p=1", false],
    ["m=65536,t=4294967295,p=1", false],
    ["m=7,t=1,p=1", false],
    ["m=19456,t=0,p=1", false],
    ["m=19456,t=2,p=0", false],
    ["m=64,t=2,p=9", false],
    ["m=19456,t=2,p=999", false],
  ])("have a password hash only where a login can afford its costs: %s", (costs, isTaken) => {
    const hash = `$argon2id$v=19$${costs}$c29tZXNhbHRzb21lc2FsdA$c29tZWhhc2hzb21laGFzaHNvbWVoYXNo`;
    const { error } = fileShape.password_hash.safeParse(hash);
    expect(error?.issues.map(({ message }) => message)).toEqual(
      isTaken ? undefined : [expect.stringContaining("such as m=19456,t=2,p=1")],
    );
  });
});

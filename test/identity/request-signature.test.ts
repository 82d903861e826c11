import { createHash, createHmac } from "node:crypto";
import { describe, expect, it } from "vitest";
import { createSignatureCheck, type SignedRequest } from "../../src/identity/keys/request-signature.ts";
import { createKeyNonces, createMemoryNonces } from "../../src/identity/memory/memory-nonces.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { refusal } from "./session-support.ts";

const start = 1_795_305_600;
const secret = "dss_secret";

function signed(changes: Partial<SignedRequest> = {}, by = secret): SignedRequest {
  const request = {
    method: "POST",
    target: "/v1/chat/completions?a=1",
    body: Buffer.from("{}"),
    timestamp: String(start + 1000),
    nonce: "0123456789abcdef",
    ...changes,
  };
  const bodyHash = createHash("sha256").update(request.body).digest("hex");
  const text = `${request.method}\n${request.target}\n${request.timestamp}\n${request.nonce}\n${bodyHash}`;
  return { ...request, signature: createHmac("sha256", by).update(text).digest("hex"), ...changes };
}

/** The proxy has run for 1000 s. */
function useCheck() {
  const clock = createManualClock(start * 1000);
  const check = createSignatureCheck({ nonces: createMemoryNonces(clock), clock });
  clock.advance(1_000_000);
  return {
    clock,
    check: (request: SignedRequest, key = "k1") => check(key, secret, request),
  };
}

describe("a signature", () => {
  it("is good once", async () => {
    const { check } = useCheck();
    await expect(check(signed())).resolves.toBeUndefined();
    await expect(check(signed())).rejects.toEqual(refusal("signature_invalid"));
    await expect(check(signed({ nonce: "fedcba9876543210" }))).resolves.toBeUndefined();
  });

  it("may use a nonce that another key has used", async () => {
    const { check } = useCheck();
    await expect(check(signed(), "k1")).resolves.toBeUndefined();
    await expect(check(signed(), "k2")).resolves.toBeUndefined();
  });

  it("covers method, path, query, body, timestamp and nonce", async () => {
    const { check } = useCheck();
    const { signature } = signed();
    for (const change of [
      { method: "GET" },
      { target: "/chat/completions?a=1" },
      { target: "/v1/chat/completions?a=2" },
      { body: Buffer.from("{} ") },
      { body: Buffer.alloc(0) },
      { timestamp: String(start + 1001) },
      { nonce: "1123456789abcdef" },
    ]) {
      await expect(check(signed({ ...change, signature }))).rejects.toThrow(/does not match/);
    }
    await expect(check(signed({}, "dss_other"))).rejects.toThrow(/does not match/);
  });

  it("is good within 300 s of the proxy's time", async () => {
    const { check } = useCheck();
    const at = (offset: number) =>
      signed({ timestamp: String(start + 1000 + offset), nonce: `nonce-of-${offset}-00000000` });
    for (const offset of [-300, 300, 0]) await expect(check(at(offset))).resolves.toBeUndefined();
    for (const offset of [-301, 301]) await expect(check(at(offset))).rejects.toThrow(/more than 300 s/);
  });

  it.each<Partial<SignedRequest>>([
    { timestamp: "" },
    { timestamp: "1e9" },
    { timestamp: "-1" },
    { timestamp: `${start}.5` },
    { nonce: "short" },
    { nonce: "a".repeat(129) },
    { nonce: "0123456789abcde\n" },
    { signature: "" },
    { signature: "0".repeat(63) },
    { signature: "g".repeat(64) },
  ])("with %j is refused", async (change) => {
    await expect(useCheck().check(signed(change))).rejects.toEqual(refusal("signature_invalid"));
  });

  it("from before the start of the proxy is refused: it may have been used then", async () => {
    const clock = createManualClock(start * 1000);
    const check = createSignatureCheck({ nonces: createMemoryNonces(clock), clock });
    await expect(check("k1", secret, signed({ timestamp: String(start - 1) }))).rejects.toEqual(
      refusal("signature_invalid"),
    );
    await check("k1", secret, signed({ timestamp: String(start) }));
  });

  it("stays used when the clock steps back after its nonce has been forgotten", async () => {
    const { check, clock } = useCheck();
    await expect(check(signed())).resolves.toBeUndefined();
    clock.advance(700_000);
    await expect(check(signed({ timestamp: String(start + 1700) }), "k2")).resolves.toBeUndefined();
    clock.advance(-700_000);
    await expect(check(signed())).rejects.toEqual(refusal("signature_invalid"));
  });

  it("that is wrong doesn't use up the nonce", async () => {
    const { check } = useCheck();
    await expect(check(signed({}, "dss_other"))).rejects.toThrow();
    await expect(check(signed())).resolves.toBeUndefined();
  });
});

describe("the memory of nonces", () => {
  it("beyond its bound refuses what it can't know any more, rather than let it in again", () => {
    const nonces = createKeyNonces(600, 3);
    for (const at of [1, 2, 3, 4]) expect(nonces.use(`n${at}`, at, 10)).toBe(true);
    expect(nonces.use("n1", 1, 10)).toBe(false);
    expect(nonces.use("new", 1, 10)).toBe(false);
    expect(nonces.use("new", 5, 10)).toBe(true);
  });

  it("holds no more than its bound", () => {
    const nonces = createKeyNonces(600, 1000);
    for (let i = 0; i < 50_000; i++) nonces.use(`n${i}`, i, i);
    expect(nonces.isIdle(50_000)).toBe(false);
    expect(nonces.isIdle(51_000)).toBe(true);
  });
});

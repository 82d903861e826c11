import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { signRequest } from "../../clients/typescript/src/index.ts";
import { createSignatureCheck } from "../../src/identity/keys/request-signature.ts";
import { createMemoryNonces } from "../../src/identity/memory/memory-nonces.ts";
import { createManualClock } from "../support/manual-clock.ts";

interface Vector {
  readonly name: string;
  readonly secret: string;
  readonly method: string;
  readonly target: string;
  readonly timestamp: string;
  readonly nonce: string;
  readonly body: string;
  readonly signature: string;
}

const file = new URL("../../docs/signature-vectors.json", import.meta.url);
const { vectors } = JSON.parse(await readFile(file, "utf8")) as { readonly vectors: readonly Vector[] };

describe("the signature vectors", () => {
  it.each(vectors)("are made by the TypeScript client: $name", async ({ secret, signature, body, ...rest }) => {
    const { method, target, timestamp, nonce } = rest;
    const request = { method, target, body: new TextEncoder().encode(body) };
    expect(await signRequest(secret, request, { timestamp, nonce })).toEqual({
      "x-signature-timestamp": timestamp,
      "x-signature-nonce": nonce,
      "x-signature": signature,
    });
  });

  it.each(vectors)("are accepted by the proxy: $name", async ({ secret, body, ...request }) => {
    // The proxy has run for longer than a signature may be old.
    const clock = createManualClock((Number(request.timestamp) - 1000) * 1000);
    const check = createSignatureCheck({ nonces: createMemoryNonces(clock), clock });
    clock.advance(1_000_000);
    await expect(check("key", secret, { ...request, body: Buffer.from(body) })).resolves.toBeUndefined();
    await expect(check("key", `${secret}x`, { ...request, body: Buffer.from(body) })).rejects.toThrow(/does not match/);
  });
});

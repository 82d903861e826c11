/** What is signed: the parts of a request as they are sent. */
export interface RequestToSign {
  readonly method: string;
  /** The path with its query, as in the request line. */
  readonly target: string;
  /** The body's bytes; absent: none. */
  readonly body?: Uint8Array<ArrayBuffer> | undefined;
}

/** Fixes what is otherwise taken from the clock and from chance. For tests. */
export interface SignatureInputs {
  /** s since the epoch, as text. */
  readonly timestamp?: string;
  readonly nonce?: string;
}

/** The three headers of a signed request. */
export interface SignatureHeaders {
  readonly "x-signature-timestamp": string;
  readonly "x-signature-nonce": string;
  readonly "x-signature": string;
}

/** Signs a request with the signing secret of an API key. Every try needs a signature of its own. */
export async function signRequest(
  secret: string,
  request: RequestToSign,
  inputs: SignatureInputs = {},
): Promise<SignatureHeaders> {
  const { timestamp = String(Math.floor(Date.now() / 1000)), nonce = randomNonce() } = inputs;
  const bodyHash = hex(await crypto.subtle.digest("SHA-256", request.body ?? new Uint8Array()));
  const text = [request.method.toUpperCase(), request.target, timestamp, nonce, bodyHash].join("\n");
  const encoder = new TextEncoder();
  const hash = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", encoder.encode(secret), hash, false, ["sign"]);
  const signature = hex(await crypto.subtle.sign("HMAC", key, encoder.encode(text)));
  return { "x-signature-timestamp": timestamp, "x-signature-nonce": nonce, "x-signature": signature };
}

function randomNonce(): string {
  return hex(crypto.getRandomValues(new Uint8Array(16)).buffer);
}

function hex(bytes: ArrayBuffer): string {
  return Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

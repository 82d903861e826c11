import { promisify } from "node:util";
import * as zlib from "node:zlib";
import { AppError } from "../../errors.ts";

/** Decodes one coding; rejects if the data is damaged, or would become longer than `maxOutputLength`. */
type Decoder = (bytes: Buffer, options: { readonly maxOutputLength: number }) => Promise<Buffer>;

/** With `info`, zlib also returns its stream, which knows how much of the input it has used. */
interface Inflated {
  readonly buffer: Buffer;
  readonly engine: { readonly bytesWritten: number };
}

type Inflate = (bytes: Buffer, options: { readonly maxOutputLength: number; readonly info: true }) => Promise<Inflated>;

/** No legitimate request has a body with more layers than this. */
const maxLayers = 3;

const gunzip = decoder(zlib.gunzip);
const inflate = decoder(zlib.inflate);
const inflateRaw = decoder(zlib.inflateRaw);
/** Available in Node since 22.15. */
const zstd: unknown = Reflect.get(zlib, "zstdDecompress");

/** By their names in RFC 9110 (8.4.1). */
const decoders: ReadonlyMap<string, Decoder> = new Map<string, Decoder>([
  ["gzip", gunzip],
  ["x-gzip", gunzip],
  // The RFC's deflate has a zlib header. Some programs omit it, as the RFC notes.
  ["deflate", (bytes, options) => (hasZlibHeader(bytes) ? inflate : inflateRaw)(bytes, options)],
  ["br", decoder(zlib.brotliDecompress)],
  ...(typeof zstd === "function" ? [["zstd", decoder(zstd as typeof zlib.gunzip)] as const] : []),
]);

const accepted = [...decoders.keys()].filter((name) => !name.startsWith("x-")).join(", ");

/**
 * The codings of a Content-Encoding header to decode, the last one applied first. `identity` is ignored.
 * @throws AppError `unsupported_media_type` for an unknown coding, with an Accept-Encoding header
 */
export function codingsOf(header: string): readonly Decoder[] {
  const names = header.split(",", 20).map((name) => name.trim().toLowerCase());
  const applied = names.filter((name) => name !== "" && name !== "identity");
  if (applied.length > maxLayers) throw refuse(`Send the body in at most ${maxLayers} Content-Encodings.`);
  return applied.reverse().map((name) => {
    const known = decoders.get(name);
    if (known === undefined) throw refuse(`Content-Encoding must be one of ${accepted}, or absent.`);
    return known;
  });
}

/**
 * Decodes a body, off the main thread.
 * @param limit maximum size after each coding, in bytes
 * @throws AppError `body_too_large` beyond it, `invalid_json` for damaged data
 */
export async function decodeBody(bytes: Buffer, codings: readonly Decoder[], limit: number): Promise<Buffer> {
  let decoded = bytes;
  try {
    for (const decode of codings) decoded = await decode(decoded, { maxOutputLength: limit });
  } catch (cause) {
    const tooLarge = cause instanceof Error && "code" in cause && cause.code === "ERR_BUFFER_TOO_LARGE";
    if (tooLarge) throw new AppError("body_too_large", { message: "The body is too large once it is decoded." });
    throw new AppError("invalid_json", { message: "The body is not in the Content-Encoding that it names.", cause });
  }
  return decoded;
}

/** Also refuses data after the end of the compressed stream: another decoder might read it. */
function decoder(run: typeof zlib.gunzip): Decoder {
  const inflated = promisify(run) as unknown as Inflate;
  return async (bytes, options) => {
    const { buffer, engine } = await inflated(bytes, { ...options, info: true });
    if (engine.bytesWritten !== bytes.length) throw new Error("the compressed data ends before the body does");
    return buffer;
  };
}

/** RFC 1950, 2.2: the method is 8, and the first two bytes as a number are a multiple of 31. */
function hasZlibHeader(bytes: Buffer): boolean {
  const [first = 0, second = 0] = bytes;
  return (first & 0x0f) === 8 && ((first << 8) | second) % 31 === 0;
}

function refuse(message: string): AppError {
  return new AppError("unsupported_media_type", { message, headers: { "accept-encoding": accepted } });
}

import type { Transform } from "node:stream";
import * as zlib from "node:zlib";
import { AppError } from "../../errors.ts";
import { GrowingBuffer } from "../../lib/growing-buffer.ts";

/** The stream that decodes one coding; some codings are told by the first bytes. */
type Decoder = (bytes: Buffer) => Transform & { readonly bytesWritten: number };

/** No legitimate request has a body with more layers than this. */
const maxLayers = 3;

const gunzip: Decoder = () => zlib.createGunzip();
/** Available in Node since 22.15. */
const zstd: unknown = Reflect.get(zlib, "createZstdDecompress");

/** By their names in RFC 9110 (8.4.1). */
const decoders: ReadonlyMap<string, Decoder> = new Map<string, Decoder>([
  ["gzip", gunzip],
  ["x-gzip", gunzip],
  // The RFC's deflate has a zlib header. Some programs omit it, as the RFC notes.
  ["deflate", (bytes) => (hasZlibHeader(bytes) ? zlib.createInflate() : zlib.createInflateRaw())],
  ["br", () => zlib.createBrotliDecompress()],
  ...(typeof zstd === "function" ? [["zstd", zstd as Decoder] as const] : []),
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

/** How a body is bounded while it is decoded. */
export interface DecodingBounds {
  /** Maximum size after each coding, in bytes. */
  readonly limit: number;
  /** Called with the size of each piece before it is kept; throws if there is no room for it. */
  readonly count: (bytes: number) => void;
}

/**
 * Decodes a body, off the main thread and in pieces: a few compressed bytes can become a great many.
 * @throws AppError `body_too_large` beyond the limit, `invalid_json` for damaged data, and whatever `count` throws
 */
export async function decodeBody(bytes: Buffer, codings: readonly Decoder[], bounds: DecodingBounds): Promise<Buffer> {
  let decoded = bytes;
  try {
    for (const coding of codings) decoded = await decode(decoded, coding, bounds);
  } catch (cause) {
    if (cause instanceof AppError) throw cause;
    throw new AppError("invalid_json", { message: "The body is not in the Content-Encoding that it names.", cause });
  }
  return decoded;
}

/** Also refuses data after the end of the compressed stream: another decoder might read it. */
function decode(bytes: Buffer, coding: Decoder, { limit, count }: DecodingBounds): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const stream = coding(bytes);
    const body = new GrowingBuffer(limit, 0);
    stream.on("data", (piece: Buffer) => {
      try {
        count(piece.length);
        if (body.push(piece)) return;
        throw new AppError("body_too_large", { message: "The body is too large once it is decoded." });
      } catch (error) {
        stream.destroy(error instanceof Error ? error : new Error(String(error)));
      }
    });
    stream.on("end", () => {
      if (stream.bytesWritten === bytes.length) resolve(body.take());
      else reject(new Error("the compressed data ends before the body does"));
    });
    stream.on("error", reject);
    stream.end(bytes);
  });
}

/** RFC 1950, 2.2: the method is 8, and the first two bytes as a number are a multiple of 31. */
function hasZlibHeader(bytes: Buffer): boolean {
  const [first = 0, second = 0] = bytes;
  return (first & 0x0f) === 8 && ((first << 8) | second) % 31 === 0;
}

function refuse(message: string): AppError {
  return new AppError("unsupported_media_type", { message, headers: { "accept-encoding": accepted } });
}

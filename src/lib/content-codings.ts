import type { Transform } from "node:stream";
import * as zlib from "node:zlib";

/** A stream that decodes what is written to it; `bytesWritten` counts the input that it has used. */
export type Decoder = Transform & { readonly bytesWritten: number };

/** How a body is decoded. */
interface DecodingMode {
  /** Whether the body is a stream: its output is flushed after every write, and a truncated end is not an error. */
  readonly live: boolean;
}

const { Z_SYNC_FLUSH, BROTLI_OPERATION_FLUSH } = zlib.constants;
const liveZlib: zlib.ZlibOptions = { flush: Z_SYNC_FLUSH, finishFlush: Z_SYNC_FLUSH };
const liveBrotli: zlib.BrotliOptions = { flush: BROTLI_OPERATION_FLUSH, finishFlush: BROTLI_OPERATION_FLUSH };

const gzip = ({ live }: DecodingMode): Decoder => zlib.createGunzip(live ? liveZlib : {});
const deflate = ({ live }: DecodingMode, first: Buffer): Decoder =>
  (hasZlibHeader(first) ? zlib.createInflate : zlib.createInflateRaw)(live ? liveZlib : {});
const brotli = ({ live }: DecodingMode): Decoder => zlib.createBrotliDecompress(live ? liveBrotli : {});

/** Available in Node since 22.15. */
const createZstd: unknown = Reflect.get(zlib, "createZstdDecompress");
const zstd = (): Decoder => (createZstd as () => Decoder)();

/** By their names in RFC 9110 (8.4.1). */
const decoders: ReadonlyMap<string, (mode: DecodingMode, first: Buffer) => Decoder> = new Map([
  ["gzip", gzip],
  ["x-gzip", gzip],
  ["deflate", deflate],
  ["br", brotli],
  ...(typeof createZstd === "function" ? [["zstd", zstd] as const] : []),
]);

/** The codings that can be decoded, as an Accept-Encoding header lists them. */
export const decodableCodings: string = [...decoders.keys()].filter((name) => !name.startsWith("x-")).join(", ");

/** The codings in a Content-Encoding header in the order of their application, in lower case and without identity. */
export function codingsIn(contentEncoding: string): readonly string[] {
  const names = contentEncoding.split(",", 20).map((name) => name.trim().toLowerCase());
  return names.filter((name) => name !== "" && name !== "identity");
}

/** Whether there is a decoder for this coding, named in lower case. */
export function isDecodableCoding(coding: string): boolean {
  return decoders.has(coding);
}

/**
 * Creates the decoder for a coding. Throws RangeError if isDecodableCoding() is false for it.
 * @param first the beginning of the body, by which the two forms of deflate are distinguished; at least one byte
 */
export function createDecoder(coding: string, first: Buffer, mode: DecodingMode): Decoder {
  const create = decoders.get(coding);
  if (create === undefined) throw new RangeError(`no decoder for ${coding}`);
  return create(mode, first);
}

/**
 * RFC 9110's deflate has a zlib header (RFC 1950, 2.2): the method is 8, and the first two bytes as a number are a
 * multiple of 31. Some programs leave it out, as RFC 9110 notes.
 */
function hasZlibHeader([first = 0, second]: Buffer): boolean {
  return (first & 0x0f) === 8 && (second === undefined || ((first << 8) | second) % 31 === 0);
}

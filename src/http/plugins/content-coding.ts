import { AppError } from "../../errors.ts";
import { codingsIn, createDecoder, decodableCodings, isDecodableCoding } from "../../lib/content-codings.ts";
import { GrowingBuffer } from "../../lib/growing-buffer.ts";

/** No legitimate request has a body with more layers than this. */
const maxLayers = 3;

/**
 * The codings of a Content-Encoding header to decode, the last one applied first. `identity` is ignored.
 * @throws AppError `unsupported_media_type` for an unknown coding, with an Accept-Encoding header
 */
export function codingsOf(header: string): readonly string[] {
  const codings = codingsIn(header);
  if (codings.length > maxLayers) throw refuse(`Send the body in at most ${maxLayers} Content-Encodings.`);
  if (!codings.every(isDecodableCoding))
    throw refuse(`Content-Encoding must be one of ${decodableCodings}, or absent.`);
  return [...codings].reverse();
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
export async function decodeBody(bytes: Buffer, codings: readonly string[], bounds: DecodingBounds): Promise<Buffer> {
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
function decode(bytes: Buffer, coding: string, { limit, count }: DecodingBounds): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const stream = createDecoder(coding, bytes, { live: false });
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

function refuse(message: string): AppError {
  return new AppError("unsupported_media_type", { message, headers: { "accept-encoding": decodableCodings } });
}

import type { Transform } from "node:stream";
import { constants, createBrotliDecompress, createGunzip, createInflate, createInflateRaw } from "node:zlib";
import { GrowingBuffer } from "../../lib/growing-buffer.ts";

/** Told what comes out of a decoder. None of these may throw. */
export interface DecodedListener {
  onDecoded(bytes: Buffer): void;
  /** More may be written. */
  onDecoderDrain(): void;
  /** All that was written has been told. */
  onDecoderEnd(): void;
  /** The bytes are not in the coding. Nothing comes after this. */
  onDecoderError(cause: Error): void;
}

/** What is written is given out at once: an event must not wait for the next one. And no end is too early for it. */
const zlibOptions = { flush: constants.Z_SYNC_FLUSH, finishFlush: constants.Z_SYNC_FLUSH };
const brotliOptions = {
  flush: constants.BROTLI_OPERATION_FLUSH,
  finishFlush: constants.BROTLI_OPERATION_FLUSH,
};

/** By their names in RFC 9110 (8.4.1), what makes a stream of each; `first` is the body's first byte. */
const decoders: ReadonlyMap<string, (first: number) => Transform> = new Map<string, (first: number) => Transform>([
  ["gzip", () => createGunzip(zlibOptions)],
  ["x-gzip", () => createGunzip(zlibOptions)],
  // The RFC's deflate has a zlib header, which begins with method 8. Some programs leave it out, as the RFC says.
  ["deflate", (first) => ((first & 0x0f) === 8 ? createInflate(zlibOptions) : createInflateRaw(zlibOptions))],
  ["br", () => createBrotliDecompress(brotliOptions)],
]);

/** The codings in a Content-Encoding header, in lower case; identity is none. */
export function codingsOf(contentEncoding: string): readonly string[] {
  return contentEncoding
    .split(",", 20)
    .map((coding) => coding.trim().toLowerCase())
    .filter((coding) => coding !== "" && coding !== "identity");
}

/** Whether a body in these codings can be read. */
export function isDecodable(codings: readonly string[]): boolean {
  return codings.length === 0 || (codings.length === 1 && decoders.has(codings[0] ?? ""));
}

/**
 * Decodes a body that is in a coding although none was asked for, off the main thread. No more is held than a stream of
 * Node's holds, however much would come out: while it is paused, `write` soon returns false.
 */
export class BodyDecoder {
  readonly #create: (first: number) => Transform;
  readonly #listener: DecodedListener;
  #stream: Transform | null = null;
  #isPaused = false;

  /** @param coding that isDecodable() has taken; throws RangeError for others */
  constructor(coding: string, listener: DecodedListener) {
    const create = decoders.get(coding);
    if (create === undefined) throw new RangeError(`no decoder for ${coding}`);
    this.#create = create;
    this.#listener = listener;
  }

  /** Takes bytes, at least one. False where onDecoderDrain should be waited for. */
  write(bytes: Buffer): boolean {
    return (this.#stream ??= this.#open(bytes[0] ?? 0)).write(bytes);
  }

  /** Nothing more comes; the body may be cut off. */
  end(): void {
    if (this.#stream === null) this.#listener.onDecoderEnd();
    else this.#stream.end();
  }

  pause(): void {
    this.#isPaused = true;
    this.#stream?.pause();
  }

  resume(): void {
    this.#isPaused = false;
    this.#stream?.resume();
  }

  /** Nothing is told after this. */
  destroy(): void {
    this.#stream?.removeAllListeners().on("error", ignore).destroy();
  }

  #open(first: number): Transform {
    const listener = this.#listener;
    const stream = this.#create(first)
      .on("data", (bytes: Buffer) => {
        listener.onDecoded(bytes);
      })
      .on("drain", () => {
        listener.onDecoderDrain();
      })
      .on("end", () => {
        listener.onDecoderEnd();
      })
      .on("error", (cause) => {
        listener.onDecoderError(cause);
      });
    if (this.#isPaused) stream.pause();
    return stream;
  }
}

/**
 * Decodes a body that is there as a whole.
 * @param coding that isDecodable() has taken; throws RangeError for others
 * @param maxBytes that may come out; rejects where it is more, or where the bytes are not in the coding
 */
export function decodeWhole(bytes: Buffer, coding: string, maxBytes: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const decoded = new GrowingBuffer(maxBytes);
    const decoder = new BodyDecoder(coding, {
      onDecoded(piece) {
        if (decoded.push(piece)) return;
        decoder.destroy();
        reject(new RangeError(`the body is larger than ${maxBytes} bytes`));
      },
      onDecoderDrain: ignore,
      onDecoderEnd() {
        resolve(decoded.take());
      },
      onDecoderError: reject,
    });
    if (bytes.length > 0) decoder.write(bytes);
    decoder.end();
  });
}

function ignore(): void {
  // Nothing waits for it.
}

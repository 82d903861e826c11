import type { Transform } from "node:stream";
import { createDecoder, isDecodableCoding } from "../../lib/content-codings.ts";
import { GrowingBuffer } from "../../lib/growing-buffer.ts";

/** Receives the output of a decoder. None of these may throw. */
export interface DecodedListener {
  onDecoded(bytes: Buffer): void;
  /** More may be written. */
  onDecoderDrain(): void;
  /** Everything that was written has been decoded. */
  onDecoderEnd(): void;
  /** The bytes are not in the coding. Nothing comes after this. */
  onDecoderError(cause: Error): void;
}

/** Whether a body in these codings can be read. */
export function isDecodable(codings: readonly string[]): boolean {
  return codings.length === 0 || (codings.length === 1 && isDecodableCoding(codings[0] ?? ""));
}

/**
 * Decodes a body that is in a coding although none was requested, off the main thread. Buffers no more than a Node
 * stream does, however large the output: while it is paused, `write` soon returns false.
 */
export class BodyDecoder {
  readonly #coding: string;
  readonly #listener: DecodedListener;
  #stream: Transform | null = null;
  #isPaused = false;

  /** @param coding one that isDecodable() accepts; throws RangeError for others */
  constructor(coding: string, listener: DecodedListener) {
    if (!isDecodableCoding(coding)) throw new RangeError(`no decoder for ${coding}`);
    this.#coding = coding;
    this.#listener = listener;
  }

  /** Takes bytes, at least one. False if the caller must wait for onDecoderDrain. */
  write(bytes: Buffer): boolean {
    return (this.#stream ??= this.#open(bytes)).write(bytes);
  }

  /** Nothing more comes; the body may be truncated. */
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

  /** The listener is not called after this. */
  destroy(): void {
    this.#stream?.removeAllListeners().on("error", ignore).destroy();
  }

  #open(first: Buffer): Transform {
    const listener = this.#listener;
    const stream = createDecoder(this.#coding, first, { live: true })
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
 * Decodes a complete body.
 * @param coding one that isDecodable() accepts; throws RangeError for others
 * @param maxBytes largest output; rejects if it is larger, or if the bytes are not in the coding
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

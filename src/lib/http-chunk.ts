const CR = 0x0d;
const LF = 0x0a;

/**
 * `bytes`, of which there must be some, as one chunk of the chunked transfer coding (RFC 9112, section 7.1). Node makes
 * the same out of four pieces, which costs more than this copy where a chunk is as small as one token.
 */
export function httpChunk(bytes: Buffer): Buffer {
  const size = bytes.length.toString(16);
  const start = size.length + 2;
  const end = start + bytes.length;
  const chunk = Buffer.allocUnsafe(end + 2);
  chunk.write(size, 0, "latin1");
  chunk[start - 2] = CR;
  chunk[start - 1] = LF;
  bytes.copy(chunk, start);
  chunk[end] = CR;
  chunk[end + 1] = LF;
  return chunk;
}

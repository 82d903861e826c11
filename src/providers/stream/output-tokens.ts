/** Up to so many bytes, the text of an event counts as one token: nearly all providers send one at a time. */
const shortText = 16;
const bytesPerToken = 4;
/** No text has more bytes than this for each of its tokens, runs of blanks and rulers included. */
const mostBytesPerToken = 32;

/**
 * Tokens of output as an event's text suggests: none without text, one for a short text, more by the length of a longer
 * one. Never more than the text has bytes.
 * @param textBytes of its text, in UTF-8
 */
export function estimatedTokens(textBytes: number): number {
  if (textBytes <= shortText) return textBytes === 0 ? 0 : 1;
  return 1 + Math.ceil((textBytes - shortText) / bytesPerToken);
}

/** Tokens of output that an event's text has at the least: more than the answer may have is proof of too long a one. */
export function leastTokens(textBytes: number): number {
  return textBytes === 0 ? 0 : Math.max(1, Math.floor(textBytes / mostBytesPerToken));
}

/** Up to this many bytes an event's text counts as one token: nearly all providers send one at a time. */
const shortText = 16;
const bytesPerToken = 4;
/** No text has more bytes for each token than this, not even runs of blanks or dashes. */
const mostBytesPerToken = 32;

/**
 * Estimates the output tokens of an event: none without text, one for a short text, more for a longer one by its
 * length. Never more than the text has bytes.
 * @param textBytes of its text, in UTF-8
 */
export function estimatedTokens(textBytes: number): number {
  if (textBytes <= shortText) return textBytes === 0 ? 0 : 1;
  return 1 + Math.ceil((textBytes - shortText) / bytesPerToken);
}

/**
 * The fewest output tokens that an event's text can have: if they exceed a limit, the response is certainly too long.
 */
export function leastTokens(textBytes: number): number {
  return textBytes === 0 ? 0 : Math.max(1, Math.floor(textBytes / mostBytesPerToken));
}

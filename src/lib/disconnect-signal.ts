/**
 * Whether the client is still connected. An AbortSignal would do the same for 4 to 9 µs a request; this costs nothing.
 * There is one slot, because a request is in one stage at a time: a waiting stage sets `onGone` and clears it when it
 * is done. Only the request's owner (the HTTP side) sets `gone`.
 */
export interface DisconnectSignal {
  readonly gone: boolean;
  onGone: (() => void) | undefined;
}

/** Thrown by a stage that finds the client disconnected: there is nobody left to respond to. */
export class ClientDisconnectedError extends Error {
  override readonly name = "ClientDisconnectedError";

  constructor() {
    super("the client has left");
  }
}

/**
 * Whether the client is still there. An AbortSignal would say the same for 4 to 9 µs a request; this costs nothing.
 * There is one slot, because a request is in one stage at a time: the stage that waits sets `onGone` and clears it
 * when it is done. Only the request's owner (the HTTP side) sets `gone`.
 */
export interface DisconnectSignal {
  readonly gone: boolean;
  onGone: (() => void) | undefined;
}

/** Thrown by a stage that found the client gone: there is nobody left to answer. */
export class ClientDisconnectedError extends Error {
  override readonly name = "ClientDisconnectedError";

  constructor() {
    super("the client has left");
  }
}

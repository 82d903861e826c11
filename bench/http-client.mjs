// The cheapest HTTP/1.1 client that can still tell a right answer from a wrong one, so that it doesn't take the cores
// from those who are measured.
import { connect } from "node:net";

/** The bytes of one POST. */
export function requestBytes(url, token, body) {
  const payload = JSON.stringify(body);
  const { host } = new URL(url);
  return Buffer.from(
    `POST /v1/chat/completions HTTP/1.1\r\nhost: ${host}\r\nauthorization: Bearer ${token}\r\n` +
      `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(payload)}\r\n\r\n${payload}`,
  );
}

/** One keep-alive connection, one request at a time. */
export class Connection {
  #socket;
  #url;
  #current;

  constructor(url) {
    this.#url = new URL(url);
  }

  /**
   * Sends a request. Resolves at the end of the answer with {ok, sentAt, firstAt, events}; `firstAt` is the ms at which
   * the first data event (or JSON) was there. `onEvents` is called with the number of new data events.
   */
  send(bytes, mustContain, onEvents) {
    return new Promise((resolve) => {
      this.#current = {
        resolve,
        mustContain,
        onEvents,
        sentAt: performance.now(),
        firstAt: undefined,
        events: 0,
        found: false,
        size: 0,
        contentLength: undefined,
        headBytes: 0,
        head: undefined,
        tail: "",
      };
      if (this.#socket === undefined || this.#socket.destroyed) this.#open();
      this.#socket.write(bytes);
    });
  }

  close() {
    this.#socket?.destroy();
  }

  #open() {
    const socket = connect(Number(this.#url.port), this.#url.hostname);
    socket.setNoDelay(true);
    socket.on("data", (bytes) => this.#read(bytes));
    socket.on("error", () => socket.destroy());
    socket.on("close", () => {
      if (socket === this.#socket) this.#finish(false);
    });
    this.#socket = socket;
  }

  #read(bytes) {
    const call = this.#current;
    if (call === undefined) return;
    call.size += bytes.length;
    const text = call.tail + bytes.latin1Slice();
    if (call.head === undefined) {
      const end = text.indexOf("\r\n\r\n");
      if (end < 0) {
        call.tail = text;
        return;
      }
      call.head = text.slice(0, end);
      call.headBytes = end + 4;
      call.contentLength = /\r\ncontent-length: (\d+)/i.exec(call.head)?.[1];
      if (call.size === call.headBytes) {
        call.tail = "";
        return;
      }
    }
    this.#count(call, text);
    if (!call.found) call.found = text.includes(call.mustContain);
    call.tail = text.slice(-32);
    const over =
      call.contentLength === undefined
        ? text.endsWith("\r\n0\r\n\r\n")
        : call.size - call.headBytes >= Number(call.contentLength);
    if (over) this.#finish(call.found && call.head.startsWith("HTTP/1.1 200"));
  }

  /** Counts "data: " that end in this piece and did not end in the kept tail. */
  #count(call, text) {
    let events = 0;
    const from = Math.max(0, call.tail.length - 5);
    for (let at = text.indexOf("data: ", from); at >= 0; at = text.indexOf("data: ", at + 6)) events++;
    if (call.firstAt === undefined && (events > 0 || call.contentLength !== undefined || text.includes('{"id"'))) {
      call.firstAt = performance.now();
    }
    call.events += events;
    if (events > 0) call.onEvents?.(events);
  }

  #finish(ok) {
    const call = this.#current;
    if (call === undefined) return;
    this.#current = undefined;
    call.resolve({ ok, sentAt: call.sentAt, firstAt: call.firstAt, events: call.events, head: call.head });
  }
}

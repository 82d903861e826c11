import type { Socket } from "node:net";
import { buildConnector } from "undici";

/**
 * Opens connections on which undici may be paused at any time. A body without a length lasts until its connection
 * closes, and undici's parser asserts, in a callback of the socket, that it is not paused then: the process would end.
 * @param timeout for the connection, in ms
 */
export function createConnector(timeout: number): buildConnector.connector {
  const connect = buildConnector({ timeout });
  return (options, callback) => {
    connect(options, (...result) => {
      // If the connection fails undici passes only the error, whatever its types say.
      if (result[0] === null) keepEndBack(result[1]);
      callback(...result);
    });
  };
}

/**
 * Makes a socket report its end only to a reader that reads past its data, as undici's parser does unless it is paused.
 * Also makes it report a reset as an ordinary error, because undici takes ECONNRESET as a clean end of such a body,
 * whether it is paused or not.
 */
function keepEndBack(socket: Socket): void {
  const push = socket.push.bind(socket);
  const read = socket.read.bind(socket);
  const destroy = socket.destroy.bind(socket);
  let ended = false;
  socket.push = (chunk: unknown, encoding?: BufferEncoding) => {
    if (chunk !== null) return push(chunk, encoding);
    ended = true;
    // As Node does at an end. A parser that is not paused then reads on.
    socket.emit("readable");
    return false;
  };
  socket.read = (size?: number): unknown => {
    if (ended && size !== 0 && socket.readableLength === 0) {
      ended = false;
      push(null);
    }
    return read(size);
  };
  socket.destroy = (error?: Error) => destroy(isReset(error) ? new Error(error.message, { cause: error }) : error);
}

function isReset(error: Error | undefined): error is Error {
  return error !== undefined && "code" in error && error.code === "ECONNRESET";
}

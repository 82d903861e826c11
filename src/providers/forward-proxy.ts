import { request as requestHttp } from "node:http";
import { request as requestHttps } from "node:https";
import { buildConnector, errors } from "undici";

/** The forward proxy did not open a tunnel. */
export class TunnelError extends Error {
  override readonly name = "TunnelError";
}

/**
 * Opens connections to providers, directly or through an HTTP proxy.
 * @param timeoutMs for TCP and TLS, and for the tunnel
 * @param forwardProxy the URL of the proxy
 */
export function createConnector(timeoutMs: number, forwardProxy: string | undefined): buildConnector.connector {
  const connect = buildConnector({ timeout: timeoutMs });
  return forwardProxy === undefined ? connect : throughProxy(new URL(forwardProxy), connect, timeoutMs);
}

/**
 * Opens connections through an HTTP proxy, by its CONNECT method (RFC 9110, section 9.3.6). TLS is spoken with the
 * provider, so the proxy sees the provider's name and none of what is sent.
 *
 * @param proxy its URL, with a name and a password where it asks for these
 * @param connect speaks TLS over the tunnel
 * @param timeoutMs until the tunnel is open; then that of `connect` begins
 */
export function throughProxy(
  proxy: URL,
  connect: buildConnector.connector,
  timeoutMs: number,
): buildConnector.connector {
  const request = proxy.protocol === "https:" ? requestHttps : requestHttp;
  const { username, password } = proxy;
  const credentials = Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`).toString("base64");
  const authorization = username === "" ? {} : { "proxy-authorization": `Basic ${credentials}` };

  return (options, callback) => {
    const { host = options.hostname, port, protocol } = options;
    // CONNECT names the port always, a URL's host only where it is not the usual one.
    const target = port === "" ? `${host}:${protocol === "https:" ? 443 : 80}` : host;
    const asking = request(new URL(proxy.origin), {
      method: "CONNECT",
      path: target,
      headers: { host: target, ...authorization },
      agent: false,
    });
    let isOver = false;
    const timer = setTimeout(() => {
      asking.destroy(new errors.ConnectTimeoutError(`the forward proxy opened no tunnel within ${timeoutMs} ms`));
    }, timeoutMs);
    asking.once("connect", ({ statusCode = 0 }, socket, head) => {
      isOver = true;
      clearTimeout(timer);
      if (statusCode < 200 || statusCode > 299) {
        socket.destroy();
        callback(new TunnelError(`the forward proxy answered CONNECT with ${statusCode}`), null);
        return;
      }
      if (head.length > 0 && protocol !== "https:") {
        // No server of HTTP speaks first.
        socket.destroy();
        callback(new TunnelError("the forward proxy sent something of its own into the tunnel"), null);
        return;
      }
      if (head.length > 0) socket.unshift(head);
      if (protocol === "https:") connect({ ...options, httpSocket: socket }, callback);
      else callback(null, socket);
    });
    asking.on("error", (error) => {
      if (isOver) return;
      isOver = true;
      clearTimeout(timer);
      callback(error, null);
    });
    asking.end();
  };
}

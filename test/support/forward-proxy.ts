import { createServer } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { onTestFinished } from "vitest";

export interface ForwardProxy {
  /** With a name and a password, which it doesn't check. */
  readonly url: string;
  readonly port: number;
  /** The targets of CONNECT, each with its credentials. */
  readonly asked: readonly string[];
}

/** Leads every tunnel to one port, whatever its target; or answers with another status, or not at all. */
export async function startForwardProxy(to: number, answer: 200 | 407 | "none" = 200): Promise<ForwardProxy> {
  const asked: string[] = [];
  const sockets = new Set<Socket>();
  const server = createServer();
  server.on("connection", (socket) => sockets.add(socket));
  server.on("connect", (request, socket) => {
    socket.on("error", () => undefined);
    asked.push(`${request.url ?? ""} ${request.headers["proxy-authorization"] ?? "without credentials"}`);
    if (answer === 407) socket.end("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
    if (answer !== 200) return;
    const target = connect(to, "127.0.0.1", () => {
      socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
      target.pipe(socket).pipe(target);
    });
    sockets.add(target);
    target.on("error", () => socket.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  const { port } = server.address() as AddressInfo;
  return { url: `http://team:p%40ss@127.0.0.1:${port}`, port, asked };
}

/** What it is sent. */
export const proxyCredentials = `Basic ${Buffer.from("team:p@ss").toString("base64")}`;

import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";

/** What is done to the bytes of one direction. All may be changed while they flow. */
interface Faults {
  /** Delay of every piece, in ms. */
  latencyMs: number;
  /** 0 is unlimited. */
  bytesPerSecond: number;
  /** Cuts into pieces of this many bytes, each a write of its own; 0 leaves them whole. */
  sliceBytes: number;
  /** Both sides are reset (RST) once this many bytes have passed on a connection; Infinity never. */
  resetAfterBytes: number;
  /** Both sides are closed cleanly (FIN) once this many bytes have passed on a connection; Infinity never. */
  closeAfterBytes: number;
  /** Nothing passes, nothing is read, nobody is told. */
  blackhole: boolean;
  /** The next piece is lost, and both sides of its connection are reset (RST) instead. Ends itself. */
  losesNext: boolean;
}

/** A TCP proxy that mistreats what passes. `up` is towards the target, `down` is back. */
export interface FaultProxy {
  /** The target's URL with this proxy's host and port. */
  readonly url: string;
  readonly up: Faults;
  readonly down: Faults;
  /** Connections that were ever accepted. */
  readonly accepted: number;
  /** Resets all connections that are open now. */
  resetAll(): void;
  close(): Promise<void>;
}

/** Starts one in front of `targetUrl`, without faults. */
export async function startFaultProxy(targetUrl: string): Promise<FaultProxy> {
  const target = new URL(targetUrl);
  const [up, down] = [noFaults(), noFaults()];
  const sockets = new Set<Socket>();
  let accepted = 0;

  function track(socket: Socket): void {
    sockets.add(socket);
    socket.setNoDelay(true);
    socket.on("error", () => socket.destroy());
    socket.once("close", () => sockets.delete(socket));
  }

  const server = createServer({ allowHalfOpen: true }, (client) => {
    accepted++;
    const upstream = connect({ host: target.hostname, port: Number(target.port), allowHalfOpen: true });
    for (const [socket, peer] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      track(socket);
      socket.once("close", (hadError) => {
        if (hadError) peer.resetAndDestroy();
        else peer.destroySoon();
      });
    }
    void pump(client, upstream, up);
    void pump(upstream, client, down);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));

  function resetAll(): void {
    for (const socket of sockets) socket.resetAndDestroy();
  }

  const url = new URL(targetUrl);
  url.hostname = "127.0.0.1";
  url.port = String((server.address() as AddressInfo).port);
  return {
    url: url.href.replace(/\/$/, ""),
    up,
    down,
    get accepted() {
      return accepted;
    },
    resetAll,
    close: () =>
      new Promise((resolve) => {
        server.close(() => {
          resolve();
        });
        resetAll();
      }),
  };
}

function noFaults(): Faults {
  return {
    latencyMs: 0,
    bytesPerSecond: 0,
    sliceBytes: 0,
    resetAfterBytes: Infinity,
    closeAfterBytes: Infinity,
    blackhole: false,
    losesNext: false,
  };
}

/** Carries one direction until either side is gone. Reads no faster than the other side takes. */
async function pump(from: Socket, to: Socket, faults: Faults): Promise<void> {
  let passed = 0;
  try {
    // Kept on return: the end of one direction is not the end of the other.
    for await (const bytes of from.iterator({ destroyOnReturn: false })) {
      for (const piece of slices(bytes as Buffer, faults)) {
        while (faults.blackhole && !to.destroyed) await turn(5);
        if (faults.losesNext) {
          faults.losesNext = false;
          reset(from, to);
          return;
        }
        const pauseMs =
          faults.latencyMs + (faults.bytesPerSecond > 0 ? (piece.length * 1000) / faults.bytesPerSecond : 0);
        if (pauseMs > 0) await turn(pauseMs);
        const left = Math.min(faults.resetAfterBytes, faults.closeAfterBytes) - passed;
        if (left < piece.length) {
          await write(to, piece.subarray(0, Math.max(0, left)));
          cut(from, to, faults);
          return;
        }
        passed += piece.length;
        await write(to, piece);
      }
    }
    to.end();
  } catch {
    // One side is gone; its `close` handler has taken the other down.
  }
}

function cut(from: Socket, to: Socket, faults: Faults): void {
  if (faults.resetAfterBytes <= faults.closeAfterBytes) reset(from, to);
  else {
    to.destroySoon();
    from.destroySoon();
  }
}

function reset(from: Socket, to: Socket): void {
  to.resetAndDestroy();
  from.resetAndDestroy();
}

function slices(bytes: Buffer, { sliceBytes }: Faults): readonly Buffer[] {
  if (sliceBytes === 0) return [bytes];
  const count = Math.ceil(bytes.length / sliceBytes);
  return Array.from({ length: count }, (_, index) => bytes.subarray(index * sliceBytes, (index + 1) * sliceBytes));
}

async function write(to: Socket, bytes: Buffer): Promise<void> {
  if (to.write(bytes)) await turn(0);
  else await once(to, "drain");
}

function turn(ms: number): Promise<void> {
  return new Promise((resolve) => {
    if (ms === 0) setImmediate(resolve);
    else setTimeout(resolve, ms);
  });
}

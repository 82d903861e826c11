// Makes operations of the process that preloads it fail at random, as a machine without descriptors or disk space does
// and as a bad network does. Takes its orders, {seed, disk, files, sockets}, over the IPC channel: each is the share of
// operations of that kind that fail. Answers with how many have, and how long the event loop was blocked at worst.
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import net from "node:net";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { createRandom } from "./random.mjs";

const delays = monitorEventLoopDelay({ resolution: 10 });
delays.enable();
let random = createRandom(1);
let shares = { disk: 0, files: 0, sockets: 0 };
const counts = { disk: 0, files: 0, sockets: 0 };

process.on("message", ({ seed, ...ordered }) => {
  if (seed !== undefined) random = createRandom(seed);
  shares = { ...shares, ...ordered };
  process.send({ ...counts, longestBlockMs: Math.round(delays.max / 1e6) });
});
process.channel?.unref();

function fails(kind) {
  if (random() >= shares[kind]) return false;
  counts[kind]++;
  return true;
}

const numbers = { EMFILE: -24, ENOSPC: -28, EIO: -5, ECONNRESET: -104, ECONNREFUSED: -111 };

function failure(syscall, code) {
  return Object.assign(new Error(`${code}: injected, ${syscall}`), { code, syscall, errno: numbers[code] });
}

/** What fails, by name: the kind of order, the codes to choose from. Reading and closing go well. */
const operations = new Map([
  ...["open", "opendir", "readdir"].map((name) => [name, ["files", ["EMFILE"]]]),
  ...["write", "writev", "writeFile", "appendFile", "mkdir", "truncate", "ftruncate"].map((name) => [
    name,
    ["disk", ["ENOSPC", "EIO"]],
  ]),
  ...["fsync", "fdatasync", "sync", "datasync", "rename", "link"].map((name) => [name, ["disk", ["EIO"]]]),
]);

function oneOf(codes) {
  return codes[Math.floor(random() * codes.length)];
}

function patch(target, name, make) {
  const original = target[name];
  if (typeof original === "function") target[name] = make(original);
}

/** Half of the writes that fail have written a part before, as on a disk that runs full. */
function partOf(name, args) {
  const [, bytes] = args;
  if (name !== "write" || !Buffer.isBuffer(bytes) || args.length > 3 || random() < 0.5) return null;
  return bytes.subarray(0, Math.floor(random() * bytes.length));
}

for (const [name, [kind, codes]] of operations) {
  patch(
    fs.promises,
    name,
    (original) =>
      (...args) =>
        fails(kind) ? Promise.reject(failure(name, oneOf(codes))) : original(...args),
  );
  patch(fs, `${name}Sync`, (original) => (...args) => {
    if (fails(kind)) throw failure(name, oneOf(codes));
    return original(...args);
  });
  patch(fs, name, (original) => (...args) => {
    if (!fails(kind)) return original(...args);
    const done = args.at(-1);
    const part = partOf(name, args);
    const error = failure(name, oneOf(codes));
    if (part === null) setImmediate(done, error);
    else original(args[0], part, () => done(error));
    return undefined;
  });
}

// Handles have methods of their own.
const handle = await fs.promises.open(process.execPath, "r");
const handles = Object.getPrototypeOf(handle);
await handle.close();
for (const [name, [kind, codes]] of operations) {
  if (name === "open") continue;
  patch(
    handles,
    name,
    (original) =>
      async function (...args) {
        if (!fails(kind)) return original.apply(this, args);
        const part = partOf(name, [this, ...args]);
        if (part !== null) await original.call(this, part, ...args.slice(1, 1));
        throw failure(name, oneOf(codes));
      },
  );
}
syncBuiltinESMExports();

patch(
  net.Socket.prototype,
  "connect",
  (original) =>
    function (...args) {
      if (!fails("sockets")) return original.apply(this, args);
      const error = failure("connect", oneOf(["EMFILE", "ECONNREFUSED"]));
      process.nextTick(() => this.destroy(error));
      return this;
    },
);
patch(
  net.Socket.prototype,
  "write",
  (original) =>
    function (...args) {
      if (fails("sockets")) {
        const error = failure("write", "ECONNRESET");
        process.nextTick(() => this.destroy(error));
      }
      return original.apply(this, args);
    },
);

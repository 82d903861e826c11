// Loaded with --import into a measured process: answers over the IPC channel with what it has used so far. Costs
// nothing while nobody asks.
const loopResolutionMs = 5;

if (process.send) {
  let delays;
  process.on("message", async (message) => {
    // The longest time for which the event loop stood still since it was asked last, and from now on.
    if (message === "loop") {
      const { monitorEventLoopDelay } = await import("node:perf_hooks");
      const maxMs = delays === undefined ? 0 : Math.max(0, delays.max / 1e6 - loopResolutionMs);
      delays ??= monitorEventLoopDelay({ resolution: loopResolutionMs });
      delays.enable();
      delays.reset();
      process.send({ maxMs });
    }
    if (message === "usage") {
      const { user, system } = process.cpuUsage();
      process.send({ cpuUs: user + system });
    }
    if (message === "memory") {
      globalThis.gc?.();
      const { rss, heapUsed, external } = process.memoryUsage();
      process.send({ rssBytes: rss, liveBytes: heapUsed + external });
    }
  });
  // Nobody is left behind where the benchmark is killed.
  process.on("disconnect", () => process.kill(process.pid, "SIGTERM"));
  // The channel must not keep a server alive that wants to stop.
  process.channel.unref();
}

// Loaded with --import into a measured process: answers over the IPC channel with what it has used so far. Costs
// nothing while nobody asks.
if (process.send) {
  process.on("message", (message) => {
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

import { defineConfig } from "vitest/config";

const crash = ["test/crash/**/*.test.ts", "test/**/kill.test.ts"];
const e2e = [
  "test/e2e/**/*.test.ts",
  "test/faults/**/*.test.ts",
  "test/http/**/*.test.ts",
  "test/clients/**/*.test.ts",
];
const panel = ["test/panel/**/*.test.ts"];
const contracts = ["test/contracts/**/*.test.ts"];
const all = ["test/**/*.test.ts"];

export default defineConfig({
  test: {
    // Real sockets and argon2 share two cores in CI: a condition gets time to come true, a hang still fails.
    testTimeout: 60_000,
    // Some compile the program first.
    hookTimeout: 120_000,
    // No module has state of its own, so the files of a project share one load of src/, which takes longer than most tests.
    isolate: false,
    // Many tests wait for sockets, timers and other processes: two cores have work for five.
    maxWorkers: 5,
    // Threads of the collector would wait for cores as the workers do.
    execArgv: ["--single-threaded-gc", "--min-semi-space-size=32", "--max-semi-space-size=64"],
    globalSetup: process.env.E2E_BACKENDS === "redis" ? ["test/support/redis-of-run.ts"] : [],
    coverage: { provider: "v8", include: ["src/**/*.ts"] },
    projects: [
      { extends: true, test: { name: "unit", include: all, exclude: [...crash, ...e2e, ...contracts, ...panel] } },
      { extends: true, test: { name: "contracts", include: contracts } },
      { extends: true, test: { name: "e2e", include: e2e } },
      // Each file has a browser of its own: three are enough for two cores.
      {
        extends: true,
        test: {
          name: "panel",
          include: panel,
          globalSetup: ["test/support/built-panel.ts"],
          // After all others: projects that run at the same time share their number of workers.
          maxWorkers: 3,
          testTimeout: 120_000,
          sequence: { groupOrder: 1 },
        },
      },
      // They also count what is left in memory.
      { extends: true, test: { name: "crash", include: crash, isolate: true } },
    ],
  },
});

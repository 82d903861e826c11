// The layers, imports go down only:
//   lib <- identity | quota | limits | providers | risk | events | fleet <- gateway, admin <- telemetry <- http, cli <- server, services <- main
// Domain folders don't import each other: services.ts hands one a function of the other.
// Open to all above lib: errors.ts, the config types, and the closed sets: tables of names that know only lib.
const domain = ["identity", "quota", "limits", "providers", "risk", "events", "fleet"];
const sets =
  "(quota/(metrics|periods|zone)|limits/rate-names|identity/roles|risk/signals|events/(catalogue|payloads))\\.ts";
const open = `^src/(lib/|errors\\.ts|config/schema|${sets})`;

module.exports = {
  forbidden: [
    { name: "no-cycles", severity: "error", from: {}, to: { circular: true } },
    {
      name: "lib-stands-alone",
      severity: "error",
      from: { path: "^src/lib/" },
      to: { path: "^src/", pathNot: "^src/lib/" },
    },
    { name: "errors-stands-alone", severity: "error", from: { path: "^src/errors\\.ts" }, to: { path: "^src/" } },
    {
      name: "config-knows-only-lib",
      severity: "error",
      from: { path: "^src/config/" },
      to: { path: "^src/", pathNot: `^src/((lib|config)/|${sets})` },
    },
    {
      name: "closed-sets-know-only-lib",
      severity: "error",
      from: { path: `^src/(${sets})` },
      to: { path: "^src/", pathNot: `^src/(lib/|${sets})` },
    },
    ...domain.map((name) => ({
      name: `${name}-knows-no-sibling`,
      severity: "error",
      from: { path: `^src/${name}/` },
      to: { path: "^src/", pathNot: `${open}|^src/${name}/` },
    })),
    {
      name: "simulator-stands-alone",
      severity: "error",
      from: { path: "^src/simulator/" },
      to: { path: "^src/", pathNot: "^src/(simulator|lib)/" },
    },
    {
      name: "gateway-is-below-http",
      severity: "error",
      from: { path: "^src/gateway/" },
      to: { path: "^src/(telemetry/|http/|server\\.ts|services\\.ts|main\\.ts|cli/)" },
    },
    {
      name: "telemetry-is-below-http",
      severity: "error",
      from: { path: "^src/telemetry/" },
      to: { path: "^src/(admin/|http/|server\\.ts|services\\.ts|main\\.ts|cli/)" },
    },
    {
      name: "only-telemetry-knows-opentelemetry",
      severity: "error",
      from: { path: "^src/", pathNot: "^src/telemetry/" },
      to: { path: "node_modules/@opentelemetry" },
    },
    {
      name: "admin-is-below-http",
      severity: "error",
      from: { path: "^src/admin/" },
      to: { path: "^src/(gateway/|http/|server\\.ts|services\\.ts|main\\.ts|cli/)" },
    },
    {
      name: "http-is-below-server",
      severity: "error",
      from: { path: "^src/http/" },
      to: { path: "^src/(server\\.ts|main\\.ts|cli/)" },
    },
    {
      name: "only-http-knows-fastify",
      severity: "error",
      from: { path: "^src/", pathNot: "^src/(http/|server\\.ts)" },
      to: { path: "node_modules/(fastify|@fastify)" },
    },
    { name: "nothing-imports-main", severity: "error", from: {}, to: { path: "^src/main\\.ts" } },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    enhancedResolveOptions: {
      extensions: [".ts", ".js"],
      exportsFields: ["exports"],
      conditionNames: ["import", "node", "default"],
    },
  },
};

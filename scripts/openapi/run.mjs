// Attacks the built proxy with schemathesis by its own document: as nobody, as a user and as an operator. Then the
// generated clients use it. scripts/test-openapi.sh calls it: node run.mjs VENV CLIENTS.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { withBuiltProxy } from "../built-proxy.mjs";

const [venv = "", clients = ""] = process.argv.slice(2);
const password = "correct horse battery";
const here = import.meta.dirname;
const folder = mkdtempSync(join(tmpdir(), "openapi-"));
const config = join(folder, "config.toml");

// Every call comes from one address and in the name of a few.
writeFileSync(
  config,
  `[server]
port = 0
[quota]
tiers = { open = {} }
[rate_limit]
requests_per_second = 10000
[security]
login_free_failures = 100000
[panel]
public_url = "http://localhost"
`,
);
mkdirSync(join(folder, "users"));
const roles = { root: ["admin"], alice: ["user"] };
for (const [name, its] of Object.entries(roles)) {
  const text = `username = "${name}"\npassword = "${password}"\nquota_tier = "open"\nroles = ${JSON.stringify(its)}\n`;
  writeFileSync(join(folder, "users", `${name}.toml`), text);
}

/** Rejects if the command fails. */
async function run(command, args, env) {
  const child = spawn(command, args, { stdio: "inherit", cwd: folder, env: { ...process.env, ...env } });
  const [code] = await once(child, "close");
  if (code !== 0) throw new Error(`${command} ended with ${code}`);
}

async function attack(url, user, ...options) {
  console.log(`schemathesis as ${user === "" ? "nobody" : user}`);
  // More workers share one interpreter: nothing is won by them.
  const always = ["--seed", "1", "--workers", "1", "--no-color", "--no-shrink", "--continue-on-failure"];
  await run(
    join(venv, "bin/schemathesis"),
    [
      "--config-file",
      join(here, "schemathesis.toml"),
      "run",
      `${url}/openapi.json`,
      "--url",
      url,
      ...always,
      ...options,
    ],
    {
      PROXY_URL: url,
      PROXY_USER: user,
      PROXY_PASSWORD: password,
      SCHEMATHESIS_HOOKS: join(here, "hooks.py"),
      PYTHONDONTWRITEBYTECODE: "1",
      NO_COLOR: "1",
    },
  );
}

try {
  await withBuiltProxy(config, async (url) => {
    const env = { PROXY_URL: url, PROXY_USER: "alice", PROXY_PASSWORD: password };
    await run(process.execPath, [join(clients, "client.js")], env);
    await run(join(venv, "bin/python"), [join(here, "client.py")], env);
    await attack(url, "", "--phases", "fuzzing", "--max-examples", "4");
    await attack(url, "alice", "--phases", "examples,fuzzing", "--max-examples", "5");
    // An operator may chat as well; that takes long, and is what alice has done.
    await attack(url, "root", "--exclude-tag", "chat", "--phases", "coverage,fuzzing", "--max-examples", "5");
  });
} finally {
  rmSync(folder, { recursive: true, force: true });
}

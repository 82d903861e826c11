import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@redis/client";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Certificate, makeCertificate } from "../support/certificate.ts";
import { eventually } from "../support/eventually.ts";
import { describeWithKafka, type KafkaServer, startKafkaServer, startMs } from "../support/kafka-server.ts";
import { describeWithRedis, freePort, type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { compiledServer, startServerProcess } from "../support/server-process.ts";
import { post } from "../support/start-proxy.ts";
import { tempDir } from "../support/temp-dir.ts";

const stream = "llmproxy:events";
const topic = "llmproxy-events";
const password = "password-of-forwarder";
const wrong = "password-of-nobody";
/** As docs/events-out.md has them. */
const rights =
  "on resetkeys ~llmproxy:events -@all +ping +eval +exists +xadd +xlen +xtrim +xinfo|groups +xpending +xrange";

type Sasl = "plain" | "scram-sha-256" | "scram-sha-512";

/** Who logs in to Kafka by which mechanism. */
const logins: Readonly<Record<Sasl, readonly [user: string, password: string]>> = {
  plain: ["alice", "a secret"],
  "scram-sha-256": ["bob", "another secret"],
  "scram-sha-512": ["bob", "another secret"],
};

/** Of /healthz. */
interface Status {
  readonly sink: string;
  readonly connected: boolean;
  readonly lag: { readonly events: number };
  readonly lastError: string | null;
  readonly lost: Readonly<Record<string, number>>;
}

describeWithKafka("forwarding over TLS with a login", () => {
  describeWithRedis("to Kafka and Redis", () => {
    let folder: string;
    let kafka: KafkaServer;
    let redis: RedisServer;
    let certificate: Certificate;
    let tlsPort: number;

    beforeAll(async () => {
      folder = mkdtempSync(join(tmpdir(), "proxy-tls-"));
      certificate = makeCertificate(folder);
      tlsPort = await freePort();
      const files = ["--tls-cert-file", certificate.certificate, "--tls-key-file", certificate.key];
      const port = ["--tls-port", String(tlsPort), "--tls-auth-clients", "no"];
      redis = await startRedisServer([...port, "--tls-ca-cert-file", certificate.certificate, ...files]);
      const admin = await createClient({ url: redis.url }).connect();
      await admin.sendCommand(["ACL", "SETUSER", "forwarder", `>${password}`, ...rights.split(" ")]);
      admin.destroy();
      kafka = await startKafkaServer();
      await kafka.createTopic(topic, 3);
    }, startMs);
    afterAll(async () => {
      await redis.close();
      await kafka.close();
      rmSync(folder, { recursive: true, force: true });
    });

    function prepare(sasl: Sasl) {
      const own = tempDir();
      mkdirSync(join(own, "users"));
      const trusted = join(own, "trusted.pem");
      writeFileSync(trusted, readFileSync(certificate.certificate, "utf8") + readFileSync(kafka.certificate, "utf8"));
      const ofRedis = `[events.redis]\nstream = "${stream}"\nurl_env = "EVENTS_URL"\n`;
      const ofKafka = `[events.kafka]\ntopic = "${topic}"\ntls = true\nsasl = "${sasl}"\n`;
      const ofSpool = '[events.spool]\ntypes = ["login.failed"]\n';
      writeFileSync(join(own, "config.toml"), `[server]\nport = 0\n${ofRedis}${ofKafka}${ofSpool}`);
      const [user, secret] = logins[sasl];
      const env = {
        KAFKA_BROKERS: kafka.secured,
        KAFKA_USERNAME: user,
        KAFKA_PASSWORD: secret,
        EVENTS_URL: `rediss://forwarder:${password}@127.0.0.1:${tlsPort}`,
        NODE_EXTRA_CA_CERTS: trusted,
      };
      return { folder: own, env };
    }

    /**
     * Starts the proxy in a process of its own, since Node reads NODE_EXTRA_CA_CERTS at its start; lets some logins fail
     * in it, and stops it once the check passes. Returns the ids of these requests, and what the log has of forwarders.
     */
    async function run(prepared: ReturnType<typeof prepare>, check: (forwarders: readonly Status[]) => void) {
      const server = await startServerProcess({ code: compiledServer(), ...prepared });
      const ids: string[] = [];
      for (let index = 0; index < 4; index++) {
        const { status, headers } = await post(`${server.url}/auth/login`, {
          username: `user-${index}`,
          password: "x",
        });
        expect(status).toBe(401);
        ids.push(headers.get("x-request-id") ?? "");
      }
      await eventually(async () => {
        const health = (await (await fetch(`${server.url}/healthz`)).json()) as {
          status: string;
          checks: { forwarders: { forwarders: readonly Status[] } };
        };
        // A sink that is away harms no request.
        expect(health.status).toBe("ok");
        check(health.checks.forwarders.forwarders);
      }, 20_000);
      server.kill("SIGTERM");
      expect(await server.ended).toEqual({ code: 0, signal: null });
      const text = server.lines.join("\n");
      for (const secret of [password, wrong, ...Object.values(logins).map(([, one]) => one)])
        expect(text).not.toContain(secret);
      return { ids, lines: server.lines.filter((line) => line.includes('"forwarder.')) };
    }

    function delivered(forwarders: readonly Status[]): void {
      const good = { connected: true, lag: { events: 0 }, lastError: null, lost: {} };
      expect(forwarders).toMatchObject([
        { ...good, sink: "redis" },
        { ...good, sink: "kafka" },
      ]);
    }

    /** Checks that both hang on with these errors, and have what has not been sent. */
    const stuck = (events: number, ...errors: readonly RegExp[]) => {
      return (forwarders: readonly Status[]): void => {
        expect(forwarders.map(({ sink, connected, lag, lost }) => [sink, connected, lag.events, lost])).toEqual([
          ["redis", false, events, {}],
          ["kafka", false, events, {}],
        ]);
        for (const [index, error] of errors.entries()) expect(forwarders[index]?.lastError).toMatch(error);
      };
    };

    async function idsInBoth(): Promise<readonly Readonly<Record<string, number>>[]> {
      const client = await createClient({ url: redis.url }).connect();
      const entries = ((await client.xRange(stream, "-", "+")) ?? []).map(({ message }) => message.requestid ?? "");
      client.destroy();
      const records = (await kafka.readTopic(topic)).map(({ headers }) => headers.ce_requestid ?? "");
      return [entries, records].map((ids) => Object.fromEntries(ids.map((id) => [id, 1])));
    }

    /** What `npm run doctor` says about the two, in a process of its own. */
    function doctor({ folder: cwd, env }: ReturnType<typeof prepare>): string {
      const args = [join(compiledServer(), "cli", "main.js"), "doctor"];
      const { stdout } = spawnSync(process.execPath, args, { cwd, encoding: "utf8", env });
      for (const secret of [password, wrong]) expect(stdout).not.toContain(secret);
      return stdout;
    }

    test.each(["plain", "scram-sha-256", "scram-sha-512"] as const)(
      "delivers, with %s and an ACL user",
      { timeout: startMs },
      async (sasl) => {
        const prepared = prepare(sasl);
        const { ids, lines } = await run(prepared, delivered);
        expect(lines).toEqual([]);
        expect(doctor(prepared)).toMatch(
          /^ok {4}Redis Stream llmproxy:events: .*\nok {4}Kafka topic llmproxy-events: /m,
        );
        for (const found of await idsInBoth())
          expect(found).toMatchObject(Object.fromEntries(ids.map((id) => [id, 1])));
      },
    );

    test(
      "names a wrong password and an unknown CA in the log and in /healthz, and delivers all once they are right",
      { timeout: startMs },
      async () => {
        const prepared = prepare("scram-sha-512");
        const { env } = prepared;
        const otherCa = makeCertificate(prepared.folder).certificate;
        const badLogin = { ...env, KAFKA_PASSWORD: wrong, EVENTS_URL: env.EVENTS_URL.replace(password, wrong) };
        const first = await run({ ...prepared, env: badLogin }, stuck(4, /WRONGPASS/, /[Aa]uthentication failed/));
        const badCa = { ...env, NODE_EXTRA_CA_CERTS: otherCa };
        const second = await run({ ...prepared, env: badCa }, stuck(8, /self-signed/, /self-signed/));
        for (const [{ lines }, ofRedis, ofKafka] of [
          [first, "WRONGPASS", "SASL authentication failed"],
          [second, "self-signed certificate", "self-signed certificate"],
        ] as const) {
          expect(lines).toHaveLength(2);
          expect(lines.find((line) => line.includes('"sink":"redis"'))).toContain(ofRedis);
          expect(lines.find((line) => line.includes('"sink":"kafka"'))).toContain(ofKafka);
        }
        expect(doctor({ ...prepared, env: badLogin })).toMatch(
          /Stream .*: WRONGPASS.*\n +fix: check the user and the password in EVENTS_URL\nFAIL .*\n +fix: check KAFKA_USERNAME/,
        );
        expect(doctor({ ...prepared, env: badCa })).toMatch(
          /Stream .*: self-signed.*\n +fix: .*NODE_EXTRA_CA_CERTS.*\nFAIL .*self-signed.*\n +fix: .*NODE_EXTRA_CA_CERTS/,
        );
        const third = await run(prepared, delivered);
        const ids = [first, second, third].flatMap((one) => one.ids);
        for (const found of await idsInBoth())
          expect(found).toMatchObject(Object.fromEntries(ids.map((id) => [id, 1])));
      },
    );
  });
});

import { z } from "zod";
import { alertTypes, defaultAlerts } from "../events/catalogue.ts";
import { maxNameLength } from "../lib/globs.ts";
import { network } from "./value-schemas.ts";

const seconds = (min: number, max: number) => z.number().min(min).max(max);
const count = (min: number, max: number) => z.int().min(min).max(max);
const addresses = z.array(network);
const hour = 3600;
const globs = z.array(z.string().min(1).max(maxNameLength)).min(1).optional();

/** [access]: which addresses may use the proxy at all. */
export const accessSection = z
  .strictObject({
    allow: addresses.default([]).describe("Addresses that may use the proxy; empty: all that `deny` doesn't name."),
    deny: addresses.default([]).describe("Addresses that may not, even if `allow` names their network."),
  })
  .superRefine(({ allow, deny }, ctx) => {
    allow.forEach((entry, index) => {
      if (!deny.includes(entry)) return;
      ctx.addIssue({
        code: "custom",
        path: ["allow", index],
        message: "expected an address that deny doesn't name too",
      });
    });
  });

export const passwordLogins = ["all", "admins", "off"] as const;
export type PasswordLogin = (typeof passwordLogins)[number];
export const registrations = ["off", "invitation"] as const;

/** [security]: who may log in with a password, and what slows down guessing. */
export const securitySection = z.strictObject({
  password_login: z
    .enum(passwordLogins)
    .default("all")
    .describe("Who may log in with a password; the others log in through `oidc`. API keys work all the same."),
  registration: z
    .enum(registrations)
    .default("off")
    .describe("Whether strangers can register with an invitation code; only while `password_login` is all."),
  require_second_factor: z
    .enum(["none", "admins"])
    .default("none")
    .describe("Who can do nothing before a second factor is set up, except with API keys."),
  login_free_failures: count(1, 1_000_000)
    .default(5)
    .describe(
      "Failed logins of an account, or from an address, before waits begin. IPv6 counts by /64, by /56 at twice the number and by /48 at four times.",
    ),
  login_first_wait_seconds: seconds(0.001, 86_400)
    .default(1)
    .describe("The first wait; it doubles with each further failure."),
  login_max_wait_seconds: seconds(0.001, 86_400).default(900).describe("The longest wait."),
  login_forget_seconds: seconds(1, 30 * 24 * hour)
    .default(hour)
    .describe("Failures are forgotten after so long without a further one."),
  login_known_address_days: count(1, 365)
    .default(30)
    .describe("How long an address from which a user has logged in stays known."),
  login_exempt_addresses: addresses
    .default(["127.0.0.0/8", "::1/128"])
    .describe(
      "Addresses shared by many users, such as a reverse proxy not in trust_proxy: failures from there count only against the account.",
    ),
  login_max_tracked: count(100, 10_000_000)
    .default(50_000)
    .describe("Maximum number of addresses whose failures are remembered; beyond it the oldest are forgotten."),
});

/** [alerts]: events that are sent to a webhook. */
export const alertsSection = z
  .strictObject({
    webhook_url: z
      .url({ protocol: /^https?$/ })
      .optional()
      .describe("URL to which alerts are POSTed as JSON; https, unless allow_private."),
    secret_env: z
      .string()
      .regex(/^[A-Za-z_][A-Za-z0-9_]*$/, "the name of an environment variable, which holds the secret")
      .default("ALERT_WEBHOOK_SECRET")
      .describe("Environment variable of the secret that signs alerts."),
    events: z.array(z.enum(alertTypes)).default(defaultAlerts).describe("Which events are alerts."),
    users: globs.describe('Only events about these users, or about none; globs such as "team-*". Absent: all.'),
    groups: globs.describe("Only events about these groups, or about none; globs. Absent: all."),
    providers: globs.describe("Only events about these providers, or about none; globs. Absent: all."),
    dead_letter_bytes: count(0, 1 << 30)
      .default(10 << 20)
      .describe(
        "Size of the files `alerts-undelivered.jsonl` and `.1` in the logs folder, where alerts go that the webhook did not accept; the oldest are dropped. 0: none are kept.",
      ),
    allow_private: z
      .boolean()
      .default(false)
      .describe("Whether the webhook may be in a private network or on this machine, and use plain http."),
    timeout_seconds: seconds(0.1, 300).default(10).describe("Timeout of one attempt."),
    max_attempts: count(1, 20)
      .default(6)
      .describe("Attempts for an alert, at growing intervals, before it is dropped."),
    max_queued: count(1, 100_000)
      .default(1000)
      .describe("Maximum number of waiting alerts; more are dropped and counted."),
  })
  .superRefine(({ webhook_url: webhookUrl, allow_private: allowPrivate }, ctx) => {
    if (webhookUrl === undefined || !URL.canParse(webhookUrl)) return;
    const { protocol, username, password } = new URL(webhookUrl);
    const refuse = (message: string): void => {
      ctx.addIssue({ code: "custom", path: ["webhook_url"], message });
    };
    if (protocol !== "https:" && !allowPrivate) refuse("expected https://");
    if (username !== "" || password !== "") refuse("expected no user name or password");
  });

import type { Config } from "../../config/schema.ts";
import { createIpList } from "../../lib/ip-list.ts";
import { createLoginGuard, type LoginGuard, type LoginGuardOptions } from "./login-guard.ts";

const dayMs = 86_400_000;

/** The login guard as [security] wants it. */
export function openLoginGuard(
  security: Config["security"],
  options: Pick<LoginGuardOptions, "hasAccount" | "clock" | "emit">,
): LoginGuard {
  const shared = createIpList(security.login_exempt_addresses);
  return createLoginGuard({
    ...options,
    rule: {
      freeFailures: security.login_free_failures,
      firstWaitMs: security.login_first_wait_seconds * 1000,
      maxWaitMs: security.login_max_wait_seconds * 1000,
      quietMs: security.login_forget_seconds * 1000,
    },
    maxTracked: security.login_max_tracked,
    isShared: (ip) => shared.has(ip),
    knownAddressMs: security.login_known_address_days * dayMs,
  });
}

import { AppError } from "../errors.ts";
import type { AuditLog } from "../events/log-files/audit-log.ts";
import type { AdminChanged, Emit } from "../events/catalogue.ts";
import type { Clock } from "../lib/clock.ts";

/** Who makes a change, and from where. */
export interface Actor {
  /** A user name, or `cli:NAME`. */
  readonly by: string;
  /** The address; "" on the command line. */
  readonly ip: string;
  /** The X-Request-ID of the request, or the command's own id. */
  readonly traceId: string;
}

/** A change. `before` and `after` contain no secrets; see AdminChanged. */
type AdminChange = Pick<AdminChanged, "action" | "user" | "before" | "after"> &
  Partial<Pick<AdminChanged, "subject" | "reason">>;

export interface Audit {
  /**
   * Called before a change whose answer has a secret that is shown once: where the change could not be recorded
   * afterwards, the secret would be lost.
   *
   * @throws AppError `storage_unavailable`
   */
  check(): Promise<void>;
  /**
   * Records a change that has just been made; it is in the audit log on disk when this resolves.
   *
   * @throws AppError `storage_unavailable` if it could not be written: the change stands, and the proxy's own log has
   * it
   */
  record(actor: Actor, change: AdminChange): Promise<void>;
}

/** The only way to report changes by operators: to the audit log first, then to all sinks. */
export function createAudit(options: { readonly log: AuditLog; readonly emit: Emit; readonly clock: Clock }): Audit {
  const { log, emit, clock } = options;
  return {
    async check() {
      try {
        await log.check(clock.now());
      } catch (cause) {
        const message = "The audit log can't be written, so nothing was changed.";
        throw new AppError("storage_unavailable", { message, cause });
      }
    },
    async record(actor, { subject = "", reason = "", ...change }) {
      const event: AdminChanged = { type: "admin.changed", at: clock.now(), ...actor, ...change, subject, reason };
      try {
        await log.append(event);
      } catch (cause) {
        const message = "The change was made, but could not be written to the audit log.";
        throw new AppError("storage_unavailable", { message, cause });
      } finally {
        emit(event);
      }
    },
  };
}

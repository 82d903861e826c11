import { AppError } from "../errors.ts";
import type { AdminAction } from "../events/catalogue.ts";
import type { ProviderAdmin, ProviderView } from "../providers/provider-admin.ts";
import type { ProviderTest } from "../providers/provider-test.ts";
import type { Actor, Audit } from "./audit.ts";

export interface ProviderOperations {
  /** All configured providers, in the order of the config. */
  list(): readonly ProviderView[];
  /** Takes a provider out of service: running requests continue, new ones are not sent. Throws AppError `not_found`. */
  drain(actor: Actor, name: string, reason: string): Promise<ProviderView>;
  /** Puts it back into service, with its circuits closed and its rate limits forgotten. Throws AppError `not_found`. */
  restore(actor: Actor, name: string, reason: string): Promise<ProviderView>;
  /**
   * Sends one small chat, which is charged to nobody, and says what came. Audited: it costs the account a little.
   *
   * @throws AppError `not_found`, `invalid_request`, `conflict` (a test of the same key runs, or it has no chats)
   */
  test(actor: Actor, name: string, wanted: WantedTest): Promise<ProviderTest>;
}

interface WantedTest {
  readonly model: string | undefined;
  /** The index of the key; default: the first. */
  readonly account: number | undefined;
}

/** Drain and restore. Idempotent: a repeat changes nothing and is not audited. */
export function createProviderOperations(options: {
  readonly providers: ProviderAdmin;
  readonly audit: Audit;
}): ProviderOperations {
  const { providers, audit } = options;

  function find(name: string): ProviderView {
    const view = providers.list().find((one) => one.name === name);
    if (view === undefined) throw new AppError("not_found", { message: `There is no provider "${name}" in use.` });
    return view;
  }

  async function change(act: "drain" | "restore", actor: Actor, name: string, reason: string): Promise<ProviderView> {
    const before = serviceOf(find(name));
    providers[act](name);
    const view = find(name);
    const after = serviceOf(view);
    const action: AdminAction = act === "drain" ? "provider.drained" : "provider.restored";
    if (JSON.stringify(before) !== JSON.stringify(after)) {
      await audit.record(actor, { action, user: null, subject: name, before, after, reason });
    }
    return view;
  }

  return {
    list: () => providers.list(),
    drain: (actor, name, reason) => change("drain", actor, name, reason),
    restore: (actor, name, reason) => change("restore", actor, name, reason),
    async test(actor, name, { model, account }) {
      const result = await providers.test(find(name).name, account, model);
      if (result === undefined)
        throw new AppError("not_found", { message: `The provider "${name}" has no account ${account ?? 0}.` });
      const { ok, model: tested, key, status, error } = result;
      const after = { ok, model: tested, account: key, status, ...(error === null ? {} : { error: error.kind }) };
      await audit.record(actor, { action: "provider.tested", user: null, subject: name, before: null, after });
      return result;
    },
  };
}

/** The audited state of a provider. */
function serviceOf({ state, keys }: ProviderView) {
  return { state, keys: keys.map(({ key, breaker, limitedForMs }) => ({ key, breaker, limited: limitedForMs > 0 })) };
}

import { AppError } from "../errors.ts";
import type { AdminAction } from "../events/types.ts";
import type { ProviderAdmin, ProviderView } from "../providers/provider-admin.ts";
import type { Actor, Audit } from "./audit.ts";

export interface ProviderOperations {
  /** All providers in use, in the order of the config. */
  list(): readonly ProviderView[];
  /** Takes a provider out of service: what runs goes on, nothing new comes. Throws AppError `not_found`. */
  drain(actor: Actor, name: string, reason: string): Promise<ProviderView>;
  /** Puts it back, with its breakers closed and its limits forgotten. Throws AppError `not_found`. */
  restore(actor: Actor, name: string, reason: string): Promise<ProviderView>;
}

/** The operator's hand on providers. Doing again what is done already changes nothing, and is not told. */
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
  };
}

/** What an operator can change about a provider. */
function serviceOf({ state, keys }: ProviderView) {
  return { state, keys: keys.map(({ key, breaker, limitedForMs }) => ({ key, breaker, limited: limitedForMs > 0 })) };
}

import { currenciesInstead, type LimitConfig } from "../config/quota-schema.ts";
import { AppError } from "../errors.ts";
import { metrics } from "../quota/metrics.ts";

/** What the config in force says about currencies. */
export interface PricedConfig {
  readonly quota: { readonly currency: string };
  readonly models: { readonly prices: readonly { readonly currency: string }[] };
}

/**
 * Refuses new limits in a currency that no price is in, as config.toml does for tiers and groups: nothing would ever count
 * for them, or every model would be refused. Those that were there before may stay: prices may have changed since.
 *
 * @throws AppError `invalid_request`, which names the field
 */
export function checkPriced(
  limits: readonly LimitConfig[],
  before: readonly LimitConfig[],
  config: PricedConfig,
): void {
  limits.forEach(({ metric, per, currency }, index) => {
    if (before.some((one) => one.metric === metric && one.per === per && one.currency === currency)) return;
    if (metrics[metric].hasCurrency) checkPricedCurrency(`limits.${index}.currency`, currency, config);
  });
}

/** As checkPriced, for one currency. @param currency undefined: quota.currency */
export function checkPricedCurrency(
  param: string,
  currency: string | undefined,
  { quota, models }: PricedConfig,
): void {
  const priced = currenciesInstead(currency ?? quota.currency, models.prices);
  if (priced === null) return;
  const got = currency ?? `none, which means ${quota.currency}`;
  const message = `${param}: expected a currency of models.prices, which are in ${priced.join(", ")}; got ${got}.`;
  throw new AppError("invalid_request", { param, message });
}

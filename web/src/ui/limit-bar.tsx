import { shortDecimal } from "../lib/format.ts";
import { formatCount, t, tOr } from "../lib/i18n.ts";
import type { Limit } from "../lib/types.ts";
import { Time } from "./basics.tsx";

/** An amount of a metric, with its unit. */
export function metricAmount(metric: string, amount: number, currency?: string): string {
  if (metric === "cost") return `${shortDecimal(plain(amount))} ${currency ?? ""}`;
  return formatCount(amount);
}

/** A number without an exponent. */
function plain(amount: number): string {
  const text = String(amount);
  return text.includes("e") ? amount.toFixed(9) : text;
}

export function metricName(metric: string, per: string): string {
  return t("metricPer", { metric: tOr(`metric_${metric}`, metric), per: tOr(`per_${per}`, per) });
}

/** A limit in short, such as "Cost per month: 5 CNY". */
export function limitText(metric: string, per: string, amount: string): string {
  return t("limitText", { metric: metricName(metric, per), amount: amount.trim() });
}

/** Tells a limit from the others of a list. */
export function limitKey({ metric, per, currency, group }: Limit): string {
  return JSON.stringify([metric, per, currency, group]);
}

/** What is left of a limit, and when it begins anew. */
export function LimitBar({ limit }: { readonly limit: Limit }) {
  const { metric, per, currency, max, used, reserved, remaining, reset_at: resetAt, group, api_key: key } = limit;
  const share = max > 0 ? Math.min(1, (used + reserved) / max) : 1;
  const level = share >= 1 ? "full" : share >= 0.9 ? "high" : "";
  const name = metricName(metric, per);
  return (
    <div class="limit">
      <div class="limit-head">
        <span>
          {name}
          {group !== undefined && <small class="badge">{t("ofGroup", { name: group })}</small>}
          {key !== undefined && <small class="badge">{t("ofKey")}</small>}
        </span>
        <span class="num" title={`${plain(used)} / ${plain(max)} ${currency ?? ""}`}>
          {t("leftOf", { left: metricAmount(metric, remaining, currency), max: metricAmount(metric, max, currency) })}
        </span>
      </div>
      <progress class={level} max={1} value={share} aria-label={name} />
      <p class="note">
        {reserved > 0 && <>{t("reservedNow", { amount: metricAmount(metric, reserved, currency) })} · </>}
        {resetAt === null ? t("neverResets") : t("resets")} {resetAt !== null && <Time iso={resetAt} />}
      </p>
    </div>
  );
}

import { useState } from "preact/hooks";
import { t } from "../lib/i18n.ts";
import { field, Field, Select } from "./dialog.tsx";

/** What a limit counts. */
export function MetricSelect() {
  const [metric, setMetric] = useState("requests");
  return (
    <Select
      label={t("metric")}
      name="metric"
      value={metric}
      onChange={setMetric}
      options={[
        ["requests", t("metric_requests")],
        ["tokens", t("metric_tokens")],
        ["cost", t("metric_cost")],
      ]}
    />
  );
}

/** Over which time it counts. */
export function PeriodSelect() {
  const [per, setPer] = useState("month");
  return (
    <Select
      label={t("period")}
      name="per"
      value={per}
      onChange={setPer}
      options={[
        ["day", t("per_day")],
        ["week", t("per_week")],
        ["month", t("per_month")],
        ["total", t("per_total")],
      ]}
    />
  );
}

/** An amount as an exact decimal; cost has at most 9 places. */
export function AmountField(props: {
  readonly label?: string;
  readonly name?: string;
  readonly required?: boolean;
  readonly autoFocus?: boolean;
  /** Whether it may be below 0. */
  readonly signed?: boolean;
}) {
  const { label = t("amount"), name = "amount", signed = false, ...rest } = props;
  const pattern = `${signed ? "-?" : ""}(?![0.]+$)[0-9]{1,15}(\\.[0-9]{1,9})?`;
  return <Field label={label} name={name} pattern={pattern} title={t("amountRule")} {...rest} />;
}

export function CurrencyField() {
  return (
    <Field
      label={t("currencyOfCost")}
      name="currency"
      pattern="[A-Z]{3}"
      title="CNY, USD, …"
      hint={t("emptyDefault")}
    />
  );
}

/** The currency that was typed; only cost has one. */
export function currencyField(data: FormData): { readonly currency?: string } {
  const currency = field(data, "currency");
  return currency === "" || field(data, "metric") !== "cost" ? {} : { currency };
}

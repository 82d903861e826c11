import { useState } from "preact/hooks";
import { change, get, part } from "../lib/api.ts";
import { t } from "../lib/i18n.ts";
import { useLoad } from "../lib/load.ts";
import { may } from "../lib/session.ts";
import type { Quota } from "../lib/types.ts";
import { Card, Empty, ErrorNote, Time } from "../ui/basics.tsx";
import { Dialog, field, Field, Form, Select, TypedConfirm } from "../ui/dialog.tsx";
import { LimitBar, limitKey, metricAmount, metricName } from "../ui/limit-bar.tsx";
import { AmountField, CurrencyField, currencyField, MetricSelect, PeriodSelect } from "../ui/quota-fields.tsx";
import { Table } from "../ui/table.tsx";
import { tell } from "../ui/toast.tsx";

/** What a user may use; more of it for a time, a change of what counts as used, a period begun again. */
export function UserQuota({ name }: { readonly name: string }) {
  const path = `/admin/users/${part(name)}/quota`;
  const quota = useLoad(path, (signal) => get<Quota>(path, {}, signal));
  const [asking, setAsking] = useState<"grant" | "adjust" | "reset">();
  const { data } = quota;
  // A grant adds to a limit that the user has: not to a group's, and not to a key's.
  const own = (data?.limits ?? []).filter(({ group, api_key: key }) => group === undefined && key === undefined);
  const [granted, setGranted] = useState("0");
  const done = (): void => {
    setAsking(undefined);
    quota.reload();
  };
  const grant = async (form: FormData): Promise<void> => {
    const days = field(form, "days");
    const limit = own[Number(field(form, "limit"))];
    if (limit === undefined) return;
    const { metric, per, currency } = limit;
    await change("POST", `${path}/grant`, {
      metric,
      per,
      amount: field(form, "amount"),
      ...(currency === undefined ? {} : { currency }),
      ...(days === "" ? {} : { until: new Date(Date.now() + Number(days) * 86_400_000).toISOString() }),
      reason: field(form, "reason"),
    });
    tell(t("granted", { name }));
    done();
  };
  const adjust = async (form: FormData): Promise<void> => {
    const metric = field(form, "metric");
    const amount = field(form, "amount");
    const reason = field(form, "reason");
    const body = (text: string, why: string) => ({
      // Money is exact as a text, counts are numbers.
      [metric]: metric === "cost" ? text : Number(text),
      ...currencyField(form),
      reason: why,
    });
    await change("POST", `${path}/adjust`, body(amount, reason));
    tell(t("adjusted", { name }), async () => {
      const opposite = amount.startsWith("-") ? amount.slice(1) : `-${amount}`;
      await change("POST", `${path}/adjust`, body(opposite, t("undoOf", { reason })));
      quota.reload();
    });
    done();
  };
  const button = (what: "grant" | "adjust" | "reset", label: string) => (
    <button
      type="button"
      onClick={() => {
        setAsking(what);
      }}
    >
      {label}
    </button>
  );
  return (
    <Card
      title={t("tabQuota")}
      dim={quota.loading}
      actions={
        may("operate") && (
          <>
            {own.length > 0 && button("grant", t("grant"))}
            {button("adjust", t("adjust"))}
            {button("reset", t("restartPeriod"))}
          </>
        )
      }
    >
      <ErrorNote error={quota.error} retry={quota.reload} />
      {data?.limits.length === 0 && <Empty>{t("noLimitsOfUser")}</Empty>}
      {data?.limits.map((limit) => (
        <LimitBar key={limitKey(limit)} limit={limit} />
      ))}
      {data?.keys?.map((key) => (
        <div key={key.id}>
          <h3>{t("limitsOfKey", { name: key.name })}</h3>
          {key.limits.map((limit) => (
            <LimitBar key={limitKey(limit)} limit={limit} />
          ))}
        </div>
      ))}
      {data?.grants !== undefined && data.grants.length > 0 && (
        <Table
          label={t("grants")}
          rows={data.grants}
          keyOf={(_grant, index) => String(index)}
          empty=""
          columns={[
            { head: t("grants"), cell: ({ metric, per }) => metricName(metric, per) },
            {
              head: t("amount"),
              num: true,
              cell: ({ metric, amount, currency }) => metricAmount(metric, amount, currency),
            },
            { head: t("until"), cell: ({ until }) => <Time iso={until} never={t("forEver")} /> },
            { head: t("reason"), cell: ({ reason }) => reason ?? "" },
          ]}
        />
      )}
      {asking === "grant" && (
        <Dialog title={t("grant")} onClose={done}>
          <p class="note">{t("grantNote")}</p>
          <Form action={t("grant")} onSubmit={grant} onCancel={done}>
            <div class="grid two">
              <AmountField required autoFocus />
              <Select
                label={t("limitsShort")}
                name="limit"
                value={granted}
                onChange={setGranted}
                options={own.map(({ metric, per, currency = "" }, index): readonly [string, string] => [
                  String(index),
                  `${metricName(metric, per)} ${currency}`.trim(),
                ])}
              />
            </div>
            <Field label={t("forDays")} name="days" type="number" min={1} max={36_500} hint={t("emptyPeriod")} />
            <Field label={t("reason")} name="reason" required maxLength={500} />
          </Form>
        </Dialog>
      )}
      {asking === "adjust" && (
        <Dialog title={t("adjust")} onClose={done}>
          <p class="note">{t("adjustNote")}</p>
          <Form action={t("adjust")} onSubmit={adjust} onCancel={done}>
            <div class="grid three">
              <AmountField required autoFocus signed />
              <MetricSelect />
              <CurrencyField />
            </div>
            <Field label={t("reason")} name="reason" required maxLength={500} />
          </Form>
        </Dialog>
      )}
      {asking === "reset" && <ResetPeriod path={path} name={name} onDone={done} />}
    </Card>
  );
}

/** Restarts a period: what was used in it no longer counts, which can't be undone. */
function ResetPeriod({
  path,
  name,
  onDone,
}: {
  readonly path: string;
  readonly name: string;
  readonly onDone: () => void;
}) {
  const [terms, setTerms] = useState<{ readonly per: string; readonly reason: string }>();
  if (terms !== undefined) {
    return (
      <TypedConfirm
        title={t("restartPeriod")}
        what={t("restartPeriodWhat")}
        name={name}
        action={t("restartPeriod")}
        onClose={onDone}
        onConfirm={async () => {
          await change("POST", `${path}/reset`, terms);
          tell(t("restarted", { name }));
        }}
      />
    );
  }
  return (
    <Dialog title={t("restartPeriod")} onClose={onDone}>
      <Form
        action={t("goOn")}
        onCancel={onDone}
        onSubmit={(data) => {
          setTerms({ per: field(data, "per"), reason: field(data, "reason") });
          return Promise.resolve();
        }}
      >
        <PeriodSelect />
        <Field label={t("reason")} name="reason" required maxLength={500} autoFocus />
      </Form>
    </Dialog>
  );
}

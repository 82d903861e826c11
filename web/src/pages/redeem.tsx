import { useState } from "preact/hooks";
import { change, get } from "../lib/api.ts";
import { t } from "../lib/i18n.ts";
import { useLoad } from "../lib/load.ts";
import type { Limit, Quota } from "../lib/types.ts";
import { Card, ErrorNote, Page } from "../ui/basics.tsx";
import { field, Field, Form } from "../ui/dialog.tsx";
import { LimitBar, limitKey, limitText } from "../ui/limit-bar.tsx";

interface Redeemed {
  readonly metric: string;
  readonly per: string;
  readonly amount: string;
  readonly currency: string | null;
  readonly before: Limit | null;
  readonly after: Limit | null;
}

/** Exchanges a code for quota; shows what one has before and after. */
export function Redeem() {
  const quota = useLoad("quota", (signal) => get<Quota>("/auth/quota", {}, signal));
  const [result, setResult] = useState<Redeemed>();
  const redeem = async (data: FormData): Promise<void> => {
    setResult(await change<Redeemed>("POST", "/codes/redeem", { code: field(data, "code") }));
    quota.reload();
  };
  return (
    <Page title={t("redeem")} note={t("redeemNote")}>
      <div class="grid two">
        <Card>
          <Form action={t("redeemNow")} onSubmit={redeem}>
            <Field label={t("code")} name="code" required autoComplete="off" autoFocus />
          </Form>
          {result !== undefined && (
            <div role="status">
              <p>
                <b>{t("redeemed")}</b>{" "}
                {limitText(result.metric, result.per, `${result.amount} ${result.currency ?? ""}`)}
              </p>
              {result.before !== null && (
                <>
                  <p class="note">{t("quotaBefore")}</p>
                  <LimitBar limit={result.before} />
                </>
              )}
              {result.after !== null && (
                <>
                  <p class="note">{t("quotaAfter")}</p>
                  <LimitBar limit={result.after} />
                </>
              )}
            </div>
          )}
        </Card>
        <Card title={t("quotaLeft")} dim={quota.loading}>
          <ErrorNote error={quota.error} retry={quota.reload} />
          {quota.data?.limits.map((limit) => (
            <LimitBar key={limitKey(limit)} limit={limit} />
          ))}
        </Card>
      </div>
    </Page>
  );
}

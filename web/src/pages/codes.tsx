import { useState } from "preact/hooks";
import { change, get, part } from "../lib/api.ts";
import { numberOf, textOf } from "../lib/facts.ts";
import { t } from "../lib/i18n.ts";
import { usePages } from "../lib/pages.ts";
import { csvLine, saveText } from "../lib/save.ts";
import { may } from "../lib/session.ts";
import { useTiers } from "../lib/tiers.ts";
import type { Facts } from "../lib/types.ts";
import { Card, CopyButton, ErrorNote, Page, Snippet, State, Time } from "../ui/basics.tsx";
import { Dialog, field, Field, Form, Select } from "../ui/dialog.tsx";
import { limitText } from "../ui/limit-bar.tsx";
import { More, Table } from "../ui/table.tsx";
import { attempt, tell } from "../ui/toast.tsx";
import { AmountField, CurrencyField, currencyField, MetricSelect, PeriodSelect } from "../ui/quota-fields.tsx";

interface CodePage {
  readonly codes: readonly Facts[];
  readonly next_cursor?: string | null;
}

/** Codes that users redeem for quota, or strangers register with: made in batches, shown once, disabled. */
export function Codes() {
  const page = usePages("codes", async (cursor, signal) => {
    const { codes, next_cursor: next = null } = await get<CodePage>("/admin/codes", { cursor }, signal);
    return { items: codes, next };
  });
  const [making, setMaking] = useState(false);
  const [kind, setKind] = useState("quota");
  const [made, setMade] = useState<readonly string[]>();
  const { tiers } = useTiers();
  const close = (): void => {
    setMaking(false);
  };
  const make = async (data: FormData): Promise<void> => {
    const days = field(data, "days");
    const group = field(data, "group");
    const tier = field(data, "tier");
    const answer = await change<Facts>("POST", "/admin/codes", {
      kind,
      name: field(data, "name"),
      count: Number(field(data, "count")),
      uses: Number(field(data, "uses")),
      ...(kind === "invitation" ? { note: field(data, "note") } : quotaOf(data)),
      ...(tier === "" ? {} : { tier }),
      ...(days === "" ? {} : { expires_at: new Date(Date.now() + Number(days) * 86_400_000).toISOString() }),
      ...(group === "" ? {} : { group }),
    });
    setMade(codesOf(answer));
    setMaking(false);
    page.reload();
  };
  return (
    <Page
      title={t("codes")}
      note={t("codesNote")}
      actions={
        may("operate") && (
          <button
            type="button"
            class="primary"
            onClick={() => {
              setMaking(true);
            }}
          >
            {t("makeCodes")}
          </button>
        )
      }
    >
      <Card dim={page.loading}>
        <ErrorNote error={page.error} retry={page.reload} />
        <Table
          label={t("codes")}
          rows={page.items}
          keyOf={(code, index) => `${textOf(code, "id")} ${index}`}
          empty={page.loading ? "…" : t("noCodes")}
          columns={[
            { head: t("name"), cell: (code) => textOf(code, "name", "batch", "id") },
            {
              head: t("worth"),
              cell: (code) => worthOf(code),
            },
            {
              head: t("uses"),
              num: true,
              cell: (code) => `${numberOf(code, "used", "redeemed")} / ${textOf(code, "uses", "max_uses")}`,
            },
            { head: t("state"), cell: (code) => <State state={textOf(code, "state", "status")} /> },
            { head: t("usedBy"), cell: ({ used_by: users }) => (Array.isArray(users) ? users.join(", ") : "") },
            {
              head: t("expires"),
              cell: (code) => <Time iso={textOf(code, "expires_at") || null} never={t("never")} />,
            },
            {
              head: t("actions"),
              num: true,
              cell: (code) =>
                may("operate") &&
                textOf(code, "state", "status") !== "disabled" && (
                  <button
                    type="button"
                    class="small"
                    onClick={() =>
                      void attempt(async () => {
                        await change("POST", `/admin/codes/${part(textOf(code, "id"))}/disable`, {});
                        tell(t("codeDisabled"));
                        page.reload();
                      })
                    }
                  >
                    {t("disable")}
                  </button>
                ),
            },
          ]}
        />
        <More busy={page.loading} more={page.more} onMore={page.loadMore} />
      </Card>
      {making && (
        <Dialog title={t("makeCodes")} onClose={close}>
          <Form action={t("makeCodes")} onSubmit={make} onCancel={close}>
            <Select
              label={t("kind")}
              name="kind"
              value={kind}
              onChange={setKind}
              options={[
                ["quota", t("kindQuota")],
                ["invitation", t("kindInvitation")],
              ]}
            />
            <Field label={t("batchName")} name="name" required autoFocus maxLength={64} />
            <div class="grid three">
              <Field label={t("howMany")} name="count" type="number" min={1} max={1000} value="1" required />
              <Field label={t("usesEach")} name="uses" type="number" min={1} max={1000} value="1" required />
              {kind === "quota" && (
                <>
                  <AmountField required />
                  <MetricSelect />
                  <PeriodSelect />
                  <CurrencyField />
                  <Field
                    label={t("creditDays")}
                    name="credit"
                    type="number"
                    min={1}
                    max={36_500}
                    hint={t("emptyPeriod")}
                  />
                </>
              )}
              <Field label={t("expiresInDays")} name="days" type="number" min={1} max={36_500} />
              <Field label={t(kind === "quota" ? "onlyGroup" : "joinsGroup")} name="group" />
              <Field label={t(kind === "quota" ? "onlyTier" : "getsTier")} name="tier" list={tiers} />
            </div>
            {kind === "invitation" && <Field label={t("noteForOperators")} name="note" maxLength={500} />}
          </Form>
        </Dialog>
      )}
      {made !== undefined && (
        <Dialog
          title={t("codesMade", { n: made.length })}
          onClose={() => {
            setMade(undefined);
          }}
        >
          <p>{t("codesOnce")}</p>
          <Snippet label={t("codes")} text={made.join("\n")} />
          <div class="actions end">
            <CopyButton text={made.join("\n")} />
            <button
              type="button"
              onClick={() => {
                saveText("codes.csv", made.map((code) => csvLine([code])).join(""));
              }}
            >
              {t("csv")}
            </button>
          </div>
        </Dialog>
      )}
    </Page>
  );
}

function quotaOf(data: FormData) {
  const credit = field(data, "credit");
  return {
    metric: field(data, "metric"),
    per: field(data, "per"),
    amount: field(data, "amount"),
    ...currencyField(data),
    ...(credit === "" ? {} : { credit_days: Number(credit) }),
  };
}

/** What a code adds; of an invitation, where it leads and what it is for. */
function worthOf(code: Facts): string {
  if (textOf(code, "kind") === "invitation") {
    const facts = ["tier", "group", "note"].map((name) => textOf(code, name)).filter((text) => text !== "");
    return [t("kindInvitation"), ...facts].join(" · ");
  }
  const amount = `${textOf(code, "amount")} ${textOf(code, "currency")}`;
  return limitText(textOf(code, "metric"), textOf(code, "per"), amount);
}

/** The texts of new codes, whether one or a batch came. */
function codesOf(answer: Facts): readonly string[] {
  const list = Array.isArray(answer.codes) ? (answer.codes as readonly unknown[]) : [answer];
  return list.map((item) => (typeof item === "string" ? item : textOf(item as Facts, "code", "text")));
}

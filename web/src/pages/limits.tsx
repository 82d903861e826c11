import { useState } from "preact/hooks";
import { change, get, part } from "../lib/api.ts";
import { duration } from "../lib/format.ts";
import { formatCount, t, tOr } from "../lib/i18n.ts";
import { useLoad } from "../lib/load.ts";
import { hrefOf, route, setQuery } from "../lib/router.ts";
import { may } from "../lib/session.ts";
import { Card, ErrorNote, Page } from "../ui/basics.tsx";
import { Dialog, field, Field, Form, Select } from "../ui/dialog.tsx";
import { UserFilter } from "../ui/filters.tsx";
import { Table } from "../ui/table.tsx";
import { attempt, tell } from "../ui/toast.tsx";

interface RiskUser {
  readonly user: string;
  readonly step: string;
  readonly pinned: boolean;
  readonly score: number;
  readonly reasons: readonly { readonly signal: string; readonly points: number; readonly text: string }[];
  readonly active_days: number;
  readonly completed: number;
}

interface RiskList {
  readonly enabled: boolean;
  readonly steps: readonly string[];
  readonly users: readonly RiskUser[];
  readonly total: number;
}

interface Rates {
  readonly rules?: readonly {
    readonly name: string;
    readonly by: readonly string[];
    readonly metric: string;
    readonly max: number;
    readonly window_seconds: number;
    readonly buckets: number;
    readonly refused: number;
  }[];
  readonly states?: readonly {
    readonly rule: string;
    readonly metric: string;
    readonly max: number;
    readonly remaining: number;
    readonly reset_ms: number;
  }[];
}

interface Locks {
  readonly locks: readonly {
    readonly scope: string;
    readonly user: string | null;
    /** What was guessed, where it is known. */
    readonly guesses: "password" | "code" | null;
    readonly address: string | null;
    readonly failures: number;
    readonly retry_after_ms: number;
  }[];
}

/** Rules for rates and whom they refuse, users by risk, and logins that have to wait. */
export function Limits() {
  const { query } = route.value;
  const user = query.get("user") ?? "";
  const rates = useLoad(`rates ${user}`, (signal) => get<Rates>("/admin/limits", { user }, signal));
  const locks = useLoad("locks", (signal) => get<Locks>("/admin/login-locks", {}, signal));
  return (
    <Page title={t("limits")}>
      <Card title={t("rateRules")} dim={rates.loading}>
        <div class="filters">
          <UserFilter label={t("leftFor")} />
        </div>
        {rates.error !== undefined && rates.error.status !== 404 && (
          <ErrorNote error={rates.error} retry={rates.reload} />
        )}
        {rates.error?.status === 404 ? (
          <p class="empty">{t("noSuchUser", { name: user })}</p>
        ) : rates.data?.states !== undefined ? (
          <Table
            label={t("rateRules")}
            rows={rates.data.states}
            keyOf={({ rule, metric }) => `${rule} ${metric}`}
            empty={t("noRules")}
            columns={[
              { head: t("rule"), cell: ({ rule }) => rule },
              { head: t("metric"), cell: ({ metric }) => tOr(`metric_${metric}`, metric) },
              {
                head: t("left"),
                num: true,
                cell: ({ remaining, max }) => `${formatCount(remaining)} / ${formatCount(max)}`,
              },
              { head: t("fullIn"), num: true, cell: ({ reset_ms: ms }) => duration(ms) },
            ]}
          />
        ) : (
          <Table
            label={t("rateRules")}
            rows={rates.data?.rules ?? []}
            keyOf={({ name }) => name}
            empty={rates.loading ? "…" : t("noRules")}
            columns={[
              { head: t("rule"), cell: ({ name }) => name },
              { head: t("eachOf"), cell: ({ by }) => (by.length === 0 ? t("allTogether") : by.join(", ")) },
              {
                head: t("allows"),
                cell: ({ max, metric, window_seconds: seconds }) =>
                  t("allowsWhat", { max, metric: tOr(`metric_${metric}`, metric), time: spanOf(seconds) }),
              },
              { head: t("inUse"), num: true, cell: ({ buckets }) => formatCount(buckets) },
              { head: t("refusedOnes"), num: true, cell: ({ refused }) => formatCount(refused) },
            ]}
          />
        )}
      </Card>
      <Risk />
      <Card title={t("loginLocks")} dim={locks.loading}>
        <ErrorNote error={locks.error} retry={locks.reload} />
        <Table
          label={t("loginLocks")}
          rows={locks.data?.locks ?? []}
          keyOf={({ scope, user: who, guesses, address }) => `${scope} ${who ?? ""} ${guesses ?? ""} ${address ?? ""}`}
          empty={locks.loading ? "…" : t("noLocks")}
          columns={[
            { head: t("user"), cell: ({ user: who }) => who ?? t("anyAccount") },
            {
              head: t("guessed"),
              cell: ({ guesses }) => (guesses === null ? "" : t(guesses === "code" ? "secondFactor" : "password")),
            },
            { head: t("address"), cell: ({ address }) => <span class="mono">{address ?? t("anyAddress")}</span> },
            { head: t("failedLogins"), num: true, cell: ({ failures }) => formatCount(failures) },
            { head: t("waitsFor"), num: true, cell: ({ retry_after_ms: ms }) => duration(ms) },
            {
              head: t("actions"),
              num: true,
              cell: ({ user: who }) =>
                may("operate") &&
                who !== null && (
                  <button
                    type="button"
                    class="small"
                    onClick={() =>
                      void attempt(async () => {
                        await change("POST", `/admin/users/${part(who)}/unlock`);
                        tell(t("unlocked", { name: who }));
                        locks.reload();
                      })
                    }
                  >
                    {t("unlock")}
                  </button>
                ),
            },
          ]}
        />
      </Card>
    </Page>
  );
}

function Risk() {
  const step = route.value.query.get("step") ?? "";
  const risk = useLoad(`risk ${step}`, (signal) => get<RiskList>("/admin/risk", { step }, signal));
  const [pinning, setPinning] = useState<RiskUser>();
  const { data } = risk;
  if (data?.enabled === false) {
    return (
      <Card title={t("risk")}>
        <p class="empty">{t("riskOff")}</p>
      </Card>
    );
  }
  const pin = async (who: RiskUser, to: string | null, reason: string): Promise<void> => {
    await change("POST", `/admin/risk/${part(who.user)}/pin`, { step: to, ...(reason === "" ? {} : { reason }) });
    risk.reload();
  };
  return (
    <Card title={t("risk")} dim={risk.loading}>
      <ErrorNote error={risk.error} retry={risk.reload} />
      <div class="filters">
        <Select
          label={t("trustStep")}
          name="step"
          value={step}
          options={[["", t("all")], ...(data?.steps ?? []).map((name): readonly [string, string] => [name, name])]}
          onChange={(value) => {
            setQuery({ step: value });
          }}
        />
      </div>
      <Table
        label={t("risk")}
        rows={data?.users ?? []}
        keyOf={({ user }) => user}
        empty={risk.loading ? "…" : t("nobodyKnown")}
        columns={[
          { head: t("user"), cell: ({ user }) => <a href={hrefOf(`/users/${part(user)}`)}>{user}</a> },
          { head: t("score"), num: true, cell: ({ score }) => score },
          { head: t("trustStep"), cell: ({ step: at, pinned }) => (pinned ? t("pinnedTo", { step: at }) : at) },
          {
            head: t("why"),
            cell: ({ reasons }) => reasons.map(({ text, points }) => `${text} (+${points})`).join(" · "),
          },
          { head: t("completedRequests"), num: true, cell: ({ completed }) => formatCount(completed) },
          {
            head: t("actions"),
            num: true,
            cell: (who) =>
              may("operate") && (
                <button
                  type="button"
                  class="small"
                  onClick={() => {
                    setPinning(who);
                  }}
                >
                  {t("pin")}
                </button>
              ),
          },
        ]}
      />
      {pinning !== undefined && (
        <PinDialog
          who={pinning}
          steps={data?.steps ?? []}
          onClose={() => {
            setPinning(undefined);
          }}
          onPin={async (to, reason) => {
            const before = pinning.pinned ? pinning.step : null;
            await pin(pinning, to, reason);
            tell(t("pinChanged", { name: pinning.user }), () => pin(pinning, before, t("undoOf", { reason })));
          }}
        />
      )}
    </Card>
  );
}

function PinDialog(props: {
  readonly who: RiskUser;
  readonly steps: readonly string[];
  readonly onClose: () => void;
  readonly onPin: (step: string | null, reason: string) => Promise<void>;
}) {
  const { who, steps, onClose } = props;
  const [step, setStep] = useState(who.step);
  return (
    <Dialog title={t("pinWhat", { name: who.user })} onClose={onClose}>
      <p class="note">{t("pinNote")}</p>
      <Form
        action={t("save")}
        onCancel={onClose}
        onSubmit={async (data) => {
          await props.onPin(step === "" ? null : step, field(data, "reason"));
          onClose();
        }}
      >
        <Select
          label={t("trustStep")}
          name="pin"
          value={step}
          options={[["", t("noPin")], ...steps.map((name): readonly [string, string] => [name, name])]}
          onChange={setStep}
        />
        <Field label={t("reason")} name="reason" maxLength={500} autoFocus />
      </Form>
    </Dialog>
  );
}

/** A window as the config has it: whole seconds as such. */
function spanOf(seconds: number): string {
  return seconds < 60 ? `${seconds} s` : duration(seconds * 1000);
}

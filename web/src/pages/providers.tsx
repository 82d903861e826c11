import { useEffect, useState } from "preact/hooks";
import { change, get, part } from "../lib/api.ts";
import { duration } from "../lib/format.ts";
import { formatCount, t } from "../lib/i18n.ts";
import { useLoad } from "../lib/load.ts";
import { hrefOf } from "../lib/router.ts";
import { may } from "../lib/session.ts";
import type { Provider } from "../lib/types.ts";
import { Amount, Card, Empty, ErrorNote, Page, State, Time } from "../ui/basics.tsx";
import { Dialog, field, Field, Form } from "../ui/dialog.tsx";
import { Table } from "../ui/table.tsx";
import { attempt, tell } from "../ui/toast.tsx";

/** The providers with their keys, circuits, latency and balance; out of service and back. */
export function Providers() {
  const list = useLoad("providers", (signal) =>
    get<{ readonly providers: readonly Provider[] }>("/admin/providers", {}, signal),
  );
  const { reload } = list;
  const [draining, setDraining] = useState<Provider>();
  const [testing, setTesting] = useState<Provider>();
  // One request for all of them, while somebody looks.
  useEffect(() => {
    const timer = setInterval(() => {
      if (document.visibilityState === "visible") reload();
    }, 5_000);
    return () => {
      clearInterval(timer);
    };
  }, []);
  const restore = async ({ name }: Provider): Promise<void> => {
    await change("POST", `/admin/providers/${part(name)}/restore`, {});
    reload();
    tell(t("restored", { name }));
  };
  return (
    <Page title={t("providers")} note={t("providersNote")}>
      <ErrorNote error={list.error} retry={reload} />
      {list.data?.providers.length === 0 && <Empty>{t("noProviders")}</Empty>}
      {list.data?.providers.map((provider) => (
        <Card
          key={provider.name}
          title={
            <>
              <a href={hrefOf(`/requests?provider=${part(provider.name)}`)}>{provider.name}</a>{" "}
              <State state={provider.state} />
            </>
          }
          actions={
            may("operate") && (
              <>
                <button
                  type="button"
                  onClick={() => {
                    setTesting(provider);
                  }}
                >
                  {t("test")}
                </button>
                {provider.state === "drained" ? (
                  <button type="button" class="primary" onClick={() => void attempt(() => restore(provider))}>
                    {t("restore")}
                  </button>
                ) : (
                  <button
                    type="button"
                    onClick={() => {
                      setDraining(provider);
                    }}
                  >
                    {t("drain")}
                  </button>
                )}
              </>
            )
          }
        >
          <Figures provider={provider} />
          <Keys provider={provider} />
        </Card>
      ))}
      {draining !== undefined && (
        <Dialog
          title={t("drainWhat", { name: draining.name })}
          onClose={() => {
            setDraining(undefined);
          }}
        >
          <p>{t("drainNote")}</p>
          <Form
            action={t("drain")}
            onCancel={() => {
              setDraining(undefined);
            }}
            onSubmit={async (data) => {
              const reason = field(data, "reason");
              await change("POST", `/admin/providers/${part(draining.name)}/drain`, reason === "" ? {} : { reason });
              setDraining(undefined);
              reload();
              tell(t("drained", { name: draining.name }), () => restore(draining));
            }}
          >
            <Field label={t("reason")} name="reason" maxLength={500} autoFocus />
          </Form>
        </Dialog>
      )}
      {testing !== undefined && (
        <TestDialog
          provider={testing}
          onClose={() => {
            setTesting(undefined);
          }}
        />
      )}
    </Page>
  );
}

interface TestResult {
  readonly ok: boolean;
  readonly model: string;
  readonly status: number | null;
  readonly headers_ms: number | null;
  readonly first_token_ms: number | null;
  readonly total_ms: number;
  readonly usage: { readonly input_tokens: number; readonly output_tokens: number } | null;
  readonly error: { readonly kind: string; readonly code: string; readonly message: string } | null;
}

/** Sends one small chat through a key of the provider, and shows what came. */
function TestDialog({ provider, onClose }: { readonly provider: Provider; readonly onClose: () => void }) {
  const [result, setResult] = useState<TestResult>();
  const test = async (data: FormData): Promise<void> => {
    setResult(undefined);
    const model = field(data, "model");
    const account = Number(field(data, "account"));
    const wanted = { account, ...(model === "" ? {} : { model }) };
    setResult(await change<TestResult>("POST", `/admin/providers/${part(provider.name)}/test`, wanted));
  };
  const ms = (value: number | null): string => (value === null ? "–" : `${Math.round(value)} ms`);
  return (
    <Dialog title={t("testWhat", { name: provider.name })} onClose={onClose}>
      <p>{t("testNote")}</p>
      <Form action={t("test")} onSubmit={test} onCancel={onClose}>
        <Field label={t("model")} name="model" maxLength={200} hint={t("testModelHint")} autoFocus />
        <Field
          label={t("key")}
          name="account"
          type="number"
          min={0}
          max={provider.keys.length - 1}
          value="0"
          required
        />
      </Form>
      {result !== undefined && (
        <div role="status">
          <p>
            <State state={result.ok ? "ok" : "failed"} /> {result.model}
            {result.status !== null && ` · HTTP ${result.status}`}
          </p>
          {result.error !== null && (
            <p>
              <b>{[result.error.kind, result.error.code].filter((text) => text !== "").join(" · ")}</b>{" "}
              {result.error.message}
            </p>
          )}
          <p class="note">
            {t("testTimes", {
              headers: ms(result.headers_ms),
              first: ms(result.first_token_ms),
              total: ms(result.total_ms),
            })}
          </p>
          {result.usage !== null && (
            <p class="note">
              {t("testUsage", {
                input: formatCount(result.usage.input_tokens),
                output: formatCount(result.usage.output_tokens),
              })}
            </p>
          )}
        </div>
      )}
    </Dialog>
  );
}

function Figures({ provider }: { readonly provider: Provider }) {
  const { kind, in_flight: running, cap, asked, failed, retries, error_rate: rate, first_event_ms: first } = provider;
  const figures: readonly (readonly [string, string])[] = [
    [t("kind"), kind],
    [t("inFlight"), cap === null ? formatCount(running) : `${formatCount(running)} / ${formatCount(cap)}`],
    [t("askedSinceStart"), formatCount(asked)],
    [t("failedOnes"), formatCount(failed)],
    [t("retries"), formatCount(retries)],
    [t("errorRate"), rate === null ? "–" : `${(rate * 100).toFixed(1)} %`],
    [
      t("firstTokenQuantiles"),
      first === null ? "–" : `${[first.p50, first.p90, first.p99].map((ms) => (ms / 1000).toFixed(2)).join(" / ")} s`,
    ],
  ];
  return (
    <div class="tiles">
      {figures.map(([label, value]) => (
        <div key={label} class={value.includes(" / ") ? "tile broad" : "tile"}>
          <span class="note">{label}</span>
          <b>{value}</b>
        </div>
      ))}
    </div>
  );
}

function Keys({ provider }: { readonly provider: Provider }) {
  return (
    <Table
      label={t("accountsOf", { name: provider.name })}
      rows={provider.keys}
      keyOf={({ key }) => String(key)}
      empty={t("noProviderKey")}
      columns={[
        { head: t("key"), cell: ({ key }) => `#${key}` },
        {
          head: t("circuit"),
          cell: ({ breaker, limited_for_ms: ms }) => (
            <>
              <State state={breaker} /> {ms > 0 && <small>{t("limitedFor", { time: duration(ms) })}</small>}
            </>
          ),
        },
        {
          head: t("circuitsByModel"),
          cell: ({ circuits }) =>
            circuits.length === 0
              ? t("allClosed")
              : circuits.map(({ model, breaker, limited_for_ms: ms }) => (
                  <div key={model}>
                    {model} <State state={breaker} />{" "}
                    {ms > 0 && <small>{t("limitedFor", { time: duration(ms) })}</small>}
                  </div>
                )),
        },
        {
          head: t("probe"),
          cell: ({ probe }) =>
            probe === null ? (
              t("noProbeYet")
            ) : (
              <>
                <State state={probe.ok ? "ok" : "failed"} /> <Time iso={probe.at} /> {probe.reason}
              </>
            ),
        },
        {
          head: t("balance"),
          num: true,
          cell: ({ probe }) =>
            probe?.balance?.amounts.map(({ currency, total }) => (
              <Amount key={currency} value={total} currency={currency} />
            )) ?? "–",
        },
      ]}
    />
  );
}

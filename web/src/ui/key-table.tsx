import type { ComponentChildren } from "preact";
import { t } from "../lib/i18n.ts";
import type { Key } from "../lib/types.ts";
import { Time } from "./basics.tsx";
import { limitText, metricAmount } from "./limit-bar.tsx";
import { Table } from "./table.tsx";

export function KeyTable(props: {
  readonly keys: readonly Key[];
  readonly onRevoke?: ((key: Key) => void) | undefined;
  readonly empty: ComponentChildren;
}) {
  const { onRevoke } = props;
  return (
    <Table
      label={t("keys")}
      rows={props.keys}
      keyOf={({ id }) => id}
      empty={props.empty}
      columns={[
        { head: t("name"), cell: ({ name, id }) => <span title={id}>{name}</span> },
        { head: t("terms"), cell: (key) => <Terms of={key} /> },
        { head: t("made"), cell: ({ created_at: at }) => <Time iso={at} /> },
        { head: t("lastUsed"), cell: ({ last_used_at: at }) => <Time iso={at} never={t("never")} /> },
        { head: t("expires"), cell: ({ expires_at: at }) => <Time iso={at} never={t("never")} /> },
        ...(onRevoke === undefined
          ? []
          : [
              {
                head: t("actions"),
                num: true,
                cell: (key: Key) => (
                  <button
                    type="button"
                    class="small danger"
                    aria-label={`${t("revoke")} ${key.name}`}
                    onClick={() => {
                      onRevoke(key);
                    }}
                  >
                    {t("revoke")}
                  </button>
                ),
              },
            ]),
      ]}
    />
  );
}

function Terms({ of: { group, models, addresses, limits = [], require_signature: signed } }: { readonly of: Key }) {
  const facts = [
    ...(group === undefined ? [] : [t("ofGroup", { name: group })]),
    ...(models === undefined ? [] : [models.join(", ")]),
    ...(addresses === undefined ? [] : [addresses.join(", ")]),
    ...limits.map(({ metric, per, max, currency }) => limitText(metric, per, metricAmount(metric, max, currency))),
    ...(signed ? [t("signed")] : []),
  ];
  return facts.length === 0 ? <span class="muted">{t("noTerms")}</span> : <>{facts.join(" · ")}</>;
}

import { get } from "../lib/api.ts";
import { duration } from "../lib/format.ts";
import { t } from "../lib/i18n.ts";
import { useLoad } from "../lib/load.ts";
import { Card, ErrorNote, Page, Time } from "../ui/basics.tsx";
import { Table } from "../ui/table.tsx";

interface NodeList {
  readonly shared: boolean;
  readonly nodes: readonly {
    readonly id: string;
    readonly this: boolean;
    readonly leader: boolean;
    readonly version: string;
    readonly address: string;
    readonly config: string;
    readonly started_at: string;
    readonly silent_ms: number;
  }[];
}

/** The processes that share the state. */
export function Nodes() {
  const list = useLoad("nodes", (signal) => get<NodeList>("/admin/nodes", {}, signal));
  const configs = new Set(list.data?.nodes.map(({ config }) => config));
  return (
    <Page title={t("nodes")}>
      <Card dim={list.loading}>
        <ErrorNote error={list.error} retry={list.reload} />
        {configs.size > 1 && <p class="banner">{t("configsDiffer")}</p>}
        {list.data !== undefined && (
          <Table
            label={t("nodes")}
            rows={list.data.nodes}
            keyOf={({ id }) => id}
            empty={list.data.shared ? "–" : t("oneNode")}
            columns={[
              {
                head: t("name"),
                cell: (node) => (
                  <>
                    {node.id} {node.this && <small class="badge good">{t("thisOne")}</small>}
                    {node.leader && <small class="badge">{t("leader")}</small>}
                  </>
                ),
              },
              { head: t("address"), cell: ({ address }) => <span class="mono">{address}</span> },
              { head: t("version"), cell: ({ version }) => version },
              { head: t("config"), cell: ({ config }) => <span class="mono">{config.slice(0, 10)}</span> },
              { head: t("started"), cell: ({ started_at: at }) => <Time iso={at} /> },
              { head: t("silentFor"), num: true, cell: ({ silent_ms: ms }) => duration(ms) },
            ]}
          />
        )}
      </Card>
    </Page>
  );
}

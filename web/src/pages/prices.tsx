import { get } from "../lib/api.ts";
import { inline } from "../lib/facts.ts";
import { t, tOr } from "../lib/i18n.ts";
import { useLoad } from "../lib/load.ts";
import { route } from "../lib/router.ts";
import type { Facts } from "../lib/types.ts";
import { Card, ErrorNote, Page } from "../ui/basics.tsx";
import { FilterField } from "../ui/filters.tsx";
import { Table } from "../ui/table.tsx";

interface ConfigWithPrices {
  readonly config: {
    readonly models?: { readonly prices?: readonly Facts[]; readonly weights?: Facts; readonly aliases?: Facts };
  };
}

const own = new Set(["models", "currency", "from", "until", "cache_hit", "cache_miss", "output"]);

/** What tokens cost: the prices of the config in force, those to come among them. */
export function Prices() {
  const config = useLoad("prices", (signal) => get<ConfigWithPrices>("/admin/config", {}, signal));
  const search = (route.value.query.get("search") ?? "").toLowerCase();
  const prices = config.data?.config.models?.prices ?? [];
  const rows = prices.filter((price) => inline(price.models).toLowerCase().includes(search));
  const amount = (name: string) => (price: Facts) =>
    price[name] === undefined ? "–" : `${inline(price[name])} ${inline(price.currency)}`;
  const aliases = Object.entries(config.data?.config.models?.aliases ?? {});
  return (
    <Page title={t("prices")} note={t("pricesNote")}>
      <Card dim={config.loading}>
        <FilterField label={t("model")} name="search" search live />
        <ErrorNote error={config.error} retry={config.reload} />
        <Table
          label={t("prices")}
          rows={rows}
          keyOf={(_price, index) => String(index)}
          empty={config.loading ? "…" : t("noPrices")}
          columns={[
            {
              head: t("model"),
              cell: (price) => <span class="pre">{Array.isArray(price.models) ? price.models.join("\n") : ""}</span>,
            },
            { head: t("inputCached"), num: true, cell: amount("cache_hit") },
            { head: t("inputUncached"), num: true, cell: amount("cache_miss") },
            { head: t("output_tokens"), num: true, cell: amount("output") },
            { head: t("inForce"), cell: (price) => <InForce price={price} /> },
            {
              head: t("otherTerms"),
              cell: (price) =>
                Object.entries(price)
                  .filter(([name, value]) => !own.has(name) && value !== null && value !== undefined)
                  .map(([name, value]) => (
                    <div key={name} class="note pre">
                      {tOr(`price_${name}`, name)} {inline(value)}
                    </div>
                  )),
            },
          ]}
        />
      </Card>
      {aliases.length > 0 && (
        <Card title={t("aliases")}>
          <Table
            label={t("aliases")}
            rows={aliases}
            keyOf={([name]) => name}
            empty=""
            columns={[
              { head: t("asked"), cell: ([name]) => <span class="mono">{name}</span> },
              { head: t("served"), cell: ([, model]) => <span class="mono">{inline(model)}</span> },
            ]}
          />
        </Card>
      )}
    </Page>
  );
}

function InForce({ price }: { readonly price: Facts }) {
  const from = typeof price.from === "string" ? price.from : "";
  const until = typeof price.until === "string" ? price.until : "";
  const now = Date.now();
  const state =
    from !== "" && Date.parse(from) > now
      ? t("priceComing")
      : until !== "" && Date.parse(until) <= now
        ? t("pricePast")
        : t("priceNow");
  return (
    <>
      {state} {from !== "" && `${t("from")} ${from} `}
      {until !== "" && `${t("until")} ${until}`}
    </>
  );
}

import { useState } from "preact/hooks";
import { change, get } from "../lib/api.ts";
import { inline } from "../lib/facts.ts";
import { t } from "../lib/i18n.ts";
import { useLoad } from "../lib/load.ts";
import { route } from "../lib/router.ts";
import { may } from "../lib/session.ts";
import type { Facts } from "../lib/types.ts";
import { Card, CopyButton, ErrorNote, Page, Time } from "../ui/basics.tsx";
import { FilterField } from "../ui/filters.tsx";
import { Table } from "../ui/table.tsx";
import { attempt, tell } from "../ui/toast.tsx";

interface ConfigState {
  readonly config: Facts;
  readonly loaded_at: string;
  readonly restart_needed: readonly string[];
  readonly invalid: { readonly since: string; readonly error: string } | null;
}

interface Reloaded {
  readonly changes: readonly { readonly path: string; readonly before: unknown; readonly after: unknown }[];
  readonly restart_needed: readonly string[];
}

/** The config in force; reads the file again and shows what that changed. */
export function Config() {
  const config = useLoad("config", (signal) => get<ConfigState>("/admin/config", {}, signal));
  const [reloaded, setReloaded] = useState<Reloaded>();
  const search = (route.value.query.get("search") ?? "").toLowerCase();
  const { data } = config;
  const rows = flat(data?.config ?? {}, "").filter(
    ([path, value]) => path.toLowerCase().includes(search) || inline(value).toLowerCase().includes(search),
  );
  const reload = (): void =>
    void attempt(async () => {
      try {
        setReloaded(await change<Reloaded>("POST", "/admin/config/reload", {}));
        tell(t("configReloaded"));
      } finally {
        config.reload();
      }
    });
  return (
    <Page
      title={t("config")}
      note={
        data !== undefined && (
          <>
            {t("inForceSince")} <Time iso={data.loaded_at} />
          </>
        )
      }
      actions={
        <>
          {data !== undefined && <CopyButton text={JSON.stringify(data.config, undefined, 2)} label={t("copyJson")} />}
          {may("operate") && (
            <button type="button" class="primary" onClick={reload}>
              {t("reloadConfig")}
            </button>
          )}
        </>
      }
    >
      <ErrorNote error={config.error} retry={config.reload} />
      {data?.invalid != null && (
        <div class="error" role="alert">
          <b>{t("configInvalid")}</b> <Time iso={data.invalid.since} />
          <p class="pre mono">{data.invalid.error}</p>
        </div>
      )}
      {data !== undefined && data.restart_needed.length > 0 && (
        <p class="banner">
          {t("restartNeeded")} <span class="mono">{data.restart_needed.join(", ")}</span>
        </p>
      )}
      {reloaded !== undefined && (
        <Card title={t("whatChanged")}>
          <Table
            label={t("whatChanged")}
            rows={reloaded.changes}
            keyOf={({ path }) => path}
            empty={t("nothingChanged")}
            columns={[
              { head: t("path"), cell: ({ path }) => <span class="mono">{path}</span> },
              { head: t("before"), cell: ({ before }) => <span class="mono">{inline(before)}</span> },
              { head: t("after"), cell: ({ after }) => <span class="mono">{inline(after)}</span> },
            ]}
          />
        </Card>
      )}
      <Card>
        <FilterField label={t("search")} name="search" search live />
        <Table
          label={t("config")}
          rows={rows}
          keyOf={([path]) => path}
          empty={config.loading ? "…" : t("nothingFits")}
          columns={[
            { head: t("path"), cell: ([path]) => <span class="mono">{path}</span> },
            { head: t("value"), cell: ([, value]) => <span class="mono pre">{inline(value)}</span> },
          ]}
        />
      </Card>
    </Page>
  );
}

/** Each value behind its path, as messages about the file name them. */
function flat(value: unknown, path: string): (readonly [path: string, value: unknown])[] {
  if (typeof value !== "object" || value === null) return [[path, value]];
  if (Array.isArray(value)) {
    if (value.every((item) => typeof item !== "object")) return [[path, value.join(", ")]];
    return value.flatMap((item, index) => flat(item, `${path}.${index}`));
  }
  return Object.entries(value).flatMap(([name, child]) => flat(child, path === "" ? name : `${path}.${name}`));
}

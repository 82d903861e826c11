import { get } from "../lib/api.ts";
import { zone } from "../lib/format.ts";
import { t } from "../lib/i18n.ts";
import { useLoad } from "../lib/load.ts";
import { useModels } from "../lib/models.ts";
import { hrefOf } from "../lib/router.ts";
import { session } from "../lib/session.ts";
import type { Limit, Quota, Usage } from "../lib/types.ts";
import { Card, Empty, ErrorNote, Page, Snippet, State } from "../ui/basics.tsx";
import { LimitBar, limitKey } from "../ui/limit-bar.tsx";
import { UsageChart } from "../ui/usage-chart.tsx";
import { curlLine } from "./snippets.ts";

interface MyGroups {
  readonly groups: readonly {
    readonly name: string;
    readonly role: string;
    readonly default: boolean;
    readonly limits: readonly Limit[];
  }[];
}

/** What one may still use, what one has used, and a line that works. */
export function Home() {
  const quota = useLoad("quota", (signal) => get<Quota>("/auth/quota", {}, signal));
  const usage = useLoad("usage", (signal) => get<Usage>("/auth/usage", { by: "day" }, signal));
  const groups = useLoad("groups", (signal) => get<MyGroups>("/auth/groups", {}, signal));
  const [model = "deepseek-flash"] = useModels();
  const others = groups.data?.groups.filter((group) => !group.default && group.limits.length > 0) ?? [];
  const limits = quota.data?.limits ?? [];
  const spent = limits.some(({ remaining }) => remaining <= 0);
  return (
    <Page title={t("hello", { name: session.value?.user ?? "" })} note={t("tierIs", { tier: quota.data?.tier ?? "…" })}>
      <div class="grid two">
        <Card
          title={t("quotaLeft")}
          actions={quota.data && <State state={spent ? "used_up" : "ok"} />}
          dim={quota.loading}
        >
          <ErrorNote error={quota.error} retry={quota.reload} />
          {quota.data !== undefined && limits.length === 0 && <Empty>{t("noLimits")}</Empty>}
          {limits.map((limit) => (
            <LimitBar key={limitKey(limit)} limit={limit} />
          ))}
          {others.map(({ name, limits: shared }) =>
            shared.map((limit) => <LimitBar key={`${name} ${limitKey(limit)}`} limit={limit} />),
          )}
        </Card>
        <Card title={t("tryIt")}>
          <p class="note">{t("tryItNote")}</p>
          <Snippet label="curl" text={curlLine("$PROXY_KEY", model)} />
          <div class="actions">
            <a class="button primary" href={hrefOf("/keys")}>
              {t("makeKey")}
            </a>
            <a class="button" href={hrefOf("/setup")}>
              {t("setup")}
            </a>
            <a class="button" href={hrefOf("/chat")}>
              {t("chat")}
            </a>
          </div>
        </Card>
      </div>
      <Card
        title={t("last30Days")}
        actions={<span class="note">{t("daysIn", { zone: usage.data?.timezone ?? zone() })}</span>}
        dim={usage.loading}
      >
        <ErrorNote error={usage.error} retry={usage.reload} />
        <UsageChart usage={usage.data} />
      </Card>
    </Page>
  );
}

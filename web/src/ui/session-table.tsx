import { t } from "../lib/i18n.ts";
import type { Session } from "../lib/types.ts";
import { Time } from "./basics.tsx";
import { Table } from "./table.tsx";

export function SessionTable(props: {
  readonly sessions: readonly Session[];
  readonly onEnd?: ((session: Session) => void) | undefined;
}) {
  const { onEnd } = props;
  return (
    <Table
      label={t("sessions")}
      rows={props.sessions}
      keyOf={({ id }) => id}
      empty={t("noSessions")}
      columns={[
        { head: t("address"), cell: ({ ip }) => <span class="mono">{ip}</span> },
        {
          head: t("program"),
          cell: ({ client, current }) => (
            <>
              <span class="clip" title={client}>
                {client}
              </span>
              {current === true && <small class="badge good">{t("thisSession")}</small>}
            </>
          ),
        },
        { head: t("loggedIn"), cell: ({ created_at: at }) => <Time iso={at} /> },
        { head: t("lastUsed"), cell: ({ last_used_at: at }) => <Time iso={at} /> },
        { head: t("expires"), cell: ({ expires_at: at }) => <Time iso={at} /> },
        ...(onEnd === undefined
          ? []
          : [
              {
                head: t("actions"),
                num: true,
                cell: (session: Session) => (
                  <button
                    type="button"
                    class="small"
                    onClick={() => {
                      onEnd(session);
                    }}
                  >
                    {t("endSession")}
                  </button>
                ),
              },
            ]),
      ]}
    />
  );
}

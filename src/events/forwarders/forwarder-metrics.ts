import { type MetricFamily, simpleFamily } from "../exposition.ts";
import { lossReasons } from "../spool/spool-segment.ts";
import type { ForwarderStatus } from "./forwarder.ts";
import type { Forwarding } from "./open-forwarders.ts";

/** The metrics of the spool and of its forwarders; none where nothing is forwarded. */
export function forwarderFamilies(read: Pick<Forwarding, "forwarders" | "spoolBytes">): readonly MetricFamily[] {
  if (read.forwarders().length === 0) return [];
  const perSink = (type: "gauge" | "counter", name: string, help: string, valueOf: (one: ForwarderStatus) => number) =>
    simpleFamily(type, name, help, () =>
      read.forwarders().map((one) => ({ labels: { sink: one.sink }, count: valueOf(one) })),
    );
  return [
    simpleFamily("gauge", "events_spool_bytes", "Bytes of the files of events on their way to other systems.", () => [
      { labels: {}, count: read.spoolBytes() },
    ]),
    perSink("gauge", "events_forwarder_lag", "Events that the sink has not acknowledged.", ({ lag }) => lag.events),
    perSink("gauge", "events_forwarder_connected", "1 if the sink could be reached at the latest attempt.", (one) =>
      one.connected ? 1 : 0,
    ),
    perSink(
      ...(["gauge", "events_forwarder_last_success_timestamp_seconds"] as const),
      "When the sink last acknowledged events, or was reached; 0: not since the start.",
      ({ lastSuccessAt }) => (lastSuccessAt ?? 0) / 1000,
    ),
    perSink("counter", "events_forwarded_total", "Events that the sink has acknowledged.", (one) => one.forwarded),
    simpleFamily("counter", "events_lost_total", "Events that the sink will never get.", () =>
      read
        .forwarders()
        .flatMap(({ sink, lost }) =>
          lossReasons.map((reason) => ({ labels: { sink, reason }, count: lost[reason] ?? 0 })),
        ),
    ),
  ];
}

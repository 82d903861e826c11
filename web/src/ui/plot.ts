import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { zone } from "../lib/format.ts";
import type { ChartData } from "./chart.tsx";

/** Draws a chart: bars on top of each other, or lines. It is a chunk of its own, loaded behind the text of a page. */
export function draw(element: HTMLElement, data: ChartData): { update(data: ChartData): void; destroy(): void } {
  let plot = make(element, data);
  let shape = shapeOf(data);
  const observer = new ResizeObserver(() => {
    plot.setSize({ width: element.clientWidth, height: data.height });
  });
  observer.observe(element);
  return {
    update(next) {
      if (shapeOf(next) === shape) {
        plot.setData(dataOf(next));
        return;
      }
      plot.destroy();
      plot = make(element, next);
      shape = shapeOf(next);
    },
    destroy() {
      observer.disconnect();
      plot.destroy();
    },
  };
}

/** What a plot can't change once it is made. */
function shapeOf({ series, kind }: ChartData): string {
  return `${kind} ${series.map(({ name }) => name).join("|")} ${document.documentElement.dataset.theme ?? ""} ${document.documentElement.lang}`;
}

function dataOf({ at, series, kind }: ChartData): uPlot.AlignedData {
  const x = at.map((ms) => ms / 1000);
  if (kind === "line") return [x, ...series.map(({ values }) => [...values])];
  // The whole pile is drawn first, then what lies below its top, and so on.
  const piles: number[][] = [];
  let below: readonly number[] = at.map(() => 0);
  for (const { values } of series) {
    const pile = below.map((sum, index) => sum + (values[index] ?? 0));
    piles.unshift(pile);
    below = pile;
  }
  return [x, ...piles];
}

/** From half a step before the first time to half a step after the last: bars stand whole, and one alone in the middle. */
function rangeOf({ data: [times = []] }: uPlot, min: number): [number, number] {
  const [first = min, second = first + 3600] = times;
  const half = (second - first) / 2;
  return [first - half, (times.at(-1) ?? first) + half];
}

/** Labels stand at times that have a value, the last among them, at most one for each 80 pixels. */
function ticksOf({ data: [times = []], width }: uPlot): number[] {
  const stride = Math.ceil(times.length / Math.max(1, Math.floor(width / 80)));
  return [...times].filter((_time, index) => (times.length - 1 - index) % stride === 0);
}

/** Ticks within a day would repeat its date. */
function once(labels: readonly string[]): string[] {
  return labels.map((label, index) => (label === labels[index - 1] ? "" : label));
}

/** A colour of the theme. What a custom property holds is only computed where an element uses it. */
function colourIn(element: HTMLElement, name: string): string {
  element.style.color = `var(--${name})`;
  const { color } = getComputedStyle(element);
  element.style.color = "";
  return color;
}

function make(element: HTMLElement, data: ChartData): uPlot {
  const { series, kind, height, formatX, formatY, onPick } = data;
  const colour = (name: string): string => colourIn(element, name);
  const order = kind === "bars" ? [...series].reverse() : series;
  const axis = { stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } };
  const bars = uPlot.paths.bars?.({ size: [0.7, 40], align: kind === "bars" ? 0 : 1 });
  const plot = new uPlot(
    {
      width: element.clientWidth,
      height,
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
      padding: [8, 20, 0, 0],
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), zone()),
      scales: { x: { time: true, range: rangeOf }, y: { range: (_plot, _min, max) => [0, max > 0 ? max * 1.05 : 1] } },
      axes: [
        {
          ...axis,
          splits: ticksOf,
          values: (_plot, ticks) => once(ticks.map((tick) => formatX(tick * 1000))),
          size: 30,
        },
        // A low chart has room for a second tick above 0.
        {
          ...axis,
          // 0.2 of a request would be shown as 0.
          values: (_plot, ticks) =>
            ticks.map((tick) =>
              !Number.isInteger(tick) && formatY(tick) === formatY(Math.round(tick)) ? "" : formatY(tick),
            ),
          size: 58,
          space: height < 150 ? 18 : 30,
        },
      ],
      series: [
        {},
        ...order.map(({ name, color }) => ({
          label: name,
          stroke: colour(color),
          ...(kind === "bars" ? { fill: colour(color), width: 0, points: { show: false } } : { width: 2 }),
          ...(kind === "bars" && bars !== undefined ? { paths: bars } : {}),
        })),
      ],
      hooks: {
        setCursor: [
          (self) => {
            data.onHover(self.cursor.idx ?? null);
          },
        ],
      },
    },
    dataOf(data),
    element,
  );
  if (onPick !== undefined) {
    plot.over.addEventListener("click", () => {
      const { idx } = plot.cursor;
      if (idx !== null && idx !== undefined) onPick(idx);
    });
  }
  return plot;
}

// One plot over time: uPlot's canvas below a legend that is text, so that figures can be read without a mouse, too.

import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { clock, NONE, type Show, tick } from "../format";
import type { Line } from "../series";
import { colour, onColours } from "../theme";

export interface PlotProps {
  title: string;
  unit: string;
  times: number[];
  lines: Line[];
  /** Seconds that the time axis shows, up to the last sample. */
  window: number;
  show: Show;
  /** The value axis ends here; otherwise it begins at 0 and ends above the highest value in sight. */
  top?: number;
  /** Powers of ten are evenly apart: for what differs by orders of magnitude. Nothing is 0 then. */
  log?: boolean;
}

const HEIGHT = 132;
const FONT = "11px system-ui, sans-serif";
/** Seconds between two ticks. */
const STEPS = [5, 10, 15, 30, 60, 120, 300, 600];

export function Plot(props: PlotProps) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const range = useRef<[number, number]>([0, 1]);
  const [cursor, setCursor] = useState<number | null>(null);
  const [colours, setColours] = useState(0);
  const last = props.times.at(-1) ?? 0;
  range.current = [last - props.window, last];
  const shape = `${props.lines.map((line) => line.label + line.colour).join("|")}|${colours}`;

  useEffect(() => onColours(() => setColours((number) => number + 1)), []);
  useEffect(() => {
    if (place.current === null) return;
    const made = new uPlot(optionsOf(props, range, setCursor, place.current.clientWidth), dataOf(props), place.current);
    plot.current = made;
    const resized = new ResizeObserver(([entry]) => {
      if (entry) made.setSize({ width: Math.floor(entry.contentRect.width), height: HEIGHT });
    });
    resized.observe(place.current);
    return () => {
      resized.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [shape]);
  useEffect(() => {
    if (!document.hidden) plot.current?.setData(dataOf(props));
  }, [last, props.window, props.lines]);

  const at = cursor === null ? props.times.length - 1 : Math.min(cursor, props.times.length - 1);
  return (
    <figure class="plot" data-plot={props.title}>
      <figcaption>
        <span class="plot-title">{props.title}</span> <span class="unit">{props.unit}</span>
        {cursor !== null && <span class="plot-time">{clock(props.times[at])}</span>}
        <Legend lines={props.lines} at={at} show={props.show} />
      </figcaption>
      <div ref={place} class="canvas" role="img" aria-label={spoken(props, at)} />
      {nothing(props) && <p class="empty nothing">No requests in this window</p>}
    </figure>
  );
}

function Legend({ lines, at, show }: { lines: Line[]; at: number; show: Show }) {
  return (
    <span class="legend">
      {lines.map((line) => (
        <span key={line.label} class="legend-item">
          <i class={`swatch ${line.colour}${line.dashed ? " dashed" : ""}`} />
          <span class="legend-label">{line.label}</span> <b>{show(line.values[at])}</b>
        </span>
      ))}
    </span>
  );
}

function spoken({ title, unit, lines, show }: PlotProps, at: number): string {
  const values = lines.map((line) => `${line.label} ${show(line.values[at])}`).join(", ");
  return `${title}, ${unit}: ${values || NONE}`;
}

/** There is a past to see, but nothing was measured in it. */
function nothing({ lines, times }: PlotProps): boolean {
  return times.length > 2 && lines.every((line) => line.values.every((value) => value === null));
}

function dataOf({ times, lines }: PlotProps): uPlot.AlignedData {
  return [times, ...lines.map((line) => line.values)];
}

function optionsOf(
  { lines, top, log }: PlotProps,
  range: { current: [number, number] },
  onCursor: (index: number | null) => void,
  width: number,
): uPlot.Options {
  const grid = { stroke: colour("grid"), width: 1 };
  const axis = { stroke: colour("muted"), font: FONT, grid, ticks: { show: false } };
  return {
    width,
    height: HEIGHT,
    padding: [8, 6, 0, 0],
    legend: { show: false },
    cursor: { sync: { key: "console" }, y: false, points: { size: 5 }, drag: { x: false, y: false } },
    scales: {
      x: { time: true, range: () => range.current },
      y: log
        ? { distr: 3, range: (_, lowest, highest) => decades(lowest, highest) }
        : { range: (_, __, highest) => [0, top ?? (highest > 0 ? highest * 1.08 : 1)] },
    },
    axes: [
      { ...axis, size: 22, gap: 4, space: 64, incrs: STEPS, values: (_, ticks, __, ___, step) => ticks.map(timeTick(step)) },
      {
        ...axis,
        size: 46,
        gap: 4,
        space: 28,
        // null: left out, for want of room.
        values: (_, ticks: (number | null)[]) => ticks.map((each) => (each === null ? null : tick(each))),
        ...(log ? { splits: (_, __, from, to) => powers(from, to) } : {}),
      },
    ],
    series: [
      {},
      ...lines.map((line) => ({
        stroke: colour(line.colour),
        width: 1.5,
        points: { show: false },
        ...(line.dashed ? { dash: [4, 3] } : {}),
      })),
    ],
    hooks: { setCursor: [(self) => onCursor(self.cursor.left !== undefined && self.cursor.left >= 0 ? (self.cursor.idx ?? null) : null)] },
  };
}

/** Whole powers of ten around what there is; uPlot has null or infinities where there is nothing. */
function decades(lowest: number | null, highest: number | null): [number, number] {
  if (!lowest || !highest || !Number.isFinite(lowest) || !Number.isFinite(highest)) return [1, 10];
  const from = Math.floor(Math.log10(lowest));
  return [10 ** from, 10 ** Math.max(from + 1, Math.ceil(Math.log10(highest)))];
}

function powers(from: number, to: number): number[] {
  const first = Math.round(Math.log10(from));
  return Array.from({ length: Math.round(Math.log10(to)) - first + 1 }, (_, place) => 10 ** (first + place));
}

function timeTick(step: number): (at: number) => string {
  return (at) => (step < 60 ? clock(at) : clock(at).slice(0, 5));
}

import "uplot/dist/uPlot.min.css";

import type { JSX } from "preact";
import { useEffect, useMemo, useRef } from "preact/hooks";
import uPlot from "uplot";

import { plural } from "../format";
import type { Attempt } from "../openapi";

type AttemptsChartProps = { attempts: readonly Attempt[]; span: number };

const BARS = 60;
const HEIGHT = 220;

/** How many were delivered and how many failed in each part of the span, up to now. */
export function counted(attempts: readonly Attempt[], span: number, now: number): [number[], number[], number[]] {
  const width = span / BARS;
  // Parts begin at whole multiples of their width, so that a bar does not change as time goes on.
  const begin = Math.floor(now / width) * width - (BARS - 1) * width;
  const times = Array.from({ length: BARS }, (_, n) => (begin + n * width) / 1000);
  const delivered = Array<number>(BARS).fill(0);
  const failed = Array<number>(BARS).fill(0);
  for (const attempt of attempts) {
    const n = Math.floor((new Date(attempt.started_at).getTime() - begin) / width);
    const counts = attempt.outcome === "delivered" ? delivered : failed;
    if (n >= 0 && n < BARS) counts[n] = (counts[n] ?? 0) + 1;
  }
  return [times, delivered, failed];
}

export function AttemptsChart({ attempts, span }: AttemptsChartProps): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const series = useMemo(() => counted(attempts, span, Date.now()), [attempts, span]);
  const [times, delivered, failed] = series;
  // The failed ones stand on the delivered ones.
  const stacked: uPlot.AlignedData = [times, delivered.map((count, n) => count + (failed[n] ?? 0)), delivered];
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(element), stacked, element);
    };
    draw();
    const observer = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: HEIGHT }));
    observer.observe(element);
    dark.addEventListener("change", draw);
    return () => {
      observer.disconnect();
      dark.removeEventListener("change", draw);
      plot.current?.destroy();
    };
  }, []);
  useEffect(() => plot.current?.setData(stacked), [series]);
  const sum = (counts: number[]) => counts.reduce((all, count) => all + count, 0);
  const said = `${plural(sum(delivered), "attempt", "attempts")} delivered, ${plural(sum(failed), "attempt", "attempts")} failed.`;
  return (
    <figure class="card chart">
      <div ref={box} role="img" aria-label={said} />
      <figcaption>
        <span class="key good" /> delivered {sum(delivered)} <span class="key bad" /> failed {sum(failed)}
      </figcaption>
    </figure>
  );
}

function hour(seconds: number): string {
  return new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }).format(seconds * 1000);
}

function options(element: HTMLElement): uPlot.Options {
  const style = getComputedStyle(element);
  const colour = (name: string) => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--ink-soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
  const bars = uPlot.paths.bars?.({ size: [0.8, 100] });
  const bar = (label: string, name: string): uPlot.Series => ({ label, fill: colour(name), width: 0, points: { show: false }, ...(bars && { paths: bars }) });
  return {
    width: element.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    scales: { y: { range: (_, __, max) => [0, Math.max(max * 1.1, 4)] } },
    axes: [{ ...axis, values: (_, splits) => splits.map(hour) }, { ...axis, size: 48, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] }],
    series: [{}, bar("failed", "--bad"), bar("delivered", "--good")],
  };
}

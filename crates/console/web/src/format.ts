// Values as people read them.

const clock: Intl.DateTimeFormatOptions = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };

/** Local time; without the date, if it is today's. */
export function localTime(text: string): string {
  const time = new Date(text);
  const isToday = time.toDateString() === new Date().toDateString();
  const date: Intl.DateTimeFormatOptions = { day: "numeric", month: "short", year: "numeric" };
  return new Intl.DateTimeFormat(undefined, isToday ? clock : { ...date, ...clock }).format(time);
}

/** `2026-01-31 12:00:00.123 UTC` */
export function utc(text: string): string {
  return `${new Date(text).toISOString().replace("T", " ").replace("Z", "")} UTC`;
}

export function milliseconds(ms: number | null): string {
  if (ms === null) return "–";
  if (ms >= 10_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms >= 100 ? Math.round(ms) : ms >= 1 ? ms.toFixed(1) : ms.toFixed(2)} ms`;
}

export function bytes(count: number): string {
  if (count < 1024) return `${count} B`;
  return count < 1024 * 1024 ? `${(count / 1024).toFixed(1)} KiB` : `${(count / 1024 / 1024).toFixed(1)} MiB`;
}

export function count(number: number): string {
  return number.toLocaleString();
}

/** `1 delivery`, `2 deliveries` */
export function plural(number: number, one: string, many: string): string {
  return `${count(number)} ${number === 1 ? one : many}`;
}

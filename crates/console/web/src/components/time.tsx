import type { JSX } from "preact";

import { localTime, utc } from "../format";

/** Local time, with UTC for whoever points at it. */
export function Time({ at, none = "–" }: { at: string | null | undefined; none?: string }): JSX.Element {
  if (!at) return <span class="faint">{none}</span>;
  return (
    <time dateTime={at} title={utc(at)}>
      {localTime(at)}
    </time>
  );
}

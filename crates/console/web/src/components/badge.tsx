import type { JSX } from "preact";

type Tone = "good" | "bad" | "wait" | "off" | "plain";

/** By the state of a webhook, a delivery, an attempt, a replay or a test. */
const tones: Record<string, Tone> = {
  active: "good",
  delivered: "good",
  completed: "good",
  finished: "good",
  live: "good",
  pending: "wait",
  scheduled: "wait",
  queued: "wait",
  parked: "wait",
  held: "wait",
  running: "wait",
  cancelling: "wait",
  connecting: "wait",
  paused: "off",
  skipped: "off",
  cancelled: "off",
  away: "off",
  deprecated: "off",
  failed: "bad",
  disabled: "bad",
  dead: "bad",
};

/** A state as a word, with a colour that says the same. */
export function Badge({ state, reason }: { state: string; reason?: string | null | undefined }): JSX.Element {
  return (
    <span class="state">
      <span class={`badge ${tones[state] ?? "plain"}`}>{state}</span>
      {reason && <span class="reason">{reason}</span>}
    </span>
  );
}

export function Tag({ children, tone = "plain" }: { children: string; tone?: Tone }): JSX.Element {
  return <span class={`badge ${tone}`}>{children}</span>;
}

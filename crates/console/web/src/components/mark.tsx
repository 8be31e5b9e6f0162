import type { JSX } from "preact";

/** The sign of Posthaste. */
export function Mark(): JSX.Element {
  return (
    <svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="8" />
      <path class="trail" d="M6 11h11M4 16h9M6 21h11" />
      <path class="head" d="M17 8l10 8-10 8" />
    </svg>
  );
}

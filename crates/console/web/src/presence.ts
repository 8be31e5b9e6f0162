// Whether somebody looks at the page. What a page asks for by itself keeps its session from ending; nobody does that to one
// who has gone away.

const AWAY_AFTER_MS = 10 * 60_000;

let last = Date.now();
for (const name of ["pointerdown", "pointermove", "keydown", "wheel", "focus"]) addEventListener(name, () => void (last = Date.now()), { passive: true });

export function isSomebodyThere(): boolean {
  return !document.hidden && Date.now() - last < AWAY_AFTER_MS;
}

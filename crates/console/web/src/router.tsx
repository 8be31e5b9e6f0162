// Which page it is: the path below `/console`. Going somewhere adds to the browser's history; changing a filter does not.

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useState } from "preact/hooks";

const base = "/console";
const listeners = new Set<() => void>();

type Place = { path: string; search: string };

function here(): Place {
  const path = location.pathname.startsWith(base) ? location.pathname.slice(base.length) : "/";
  return { path: path || "/", search: location.search };
}

function tell(): void {
  listeners.forEach((listener) => listener());
}

addEventListener("popstate", tell);

export function go(to: string, how: "push" | "replace" = "push"): void {
  history[`${how}State`](null, "", base + to);
  tell();
}

export function usePlace(): Place {
  const [place, setPlace] = useState(here);
  useEffect(() => {
    const listener = () => setPlace(here());
    listeners.add(listener);
    listener();
    return () => void listeners.delete(listener);
  }, []);
  return place;
}

/** The values of the query, and how to set some of them; an empty one is left out. */
export function useFilters<N extends string>(names: readonly N[]): [Record<N, string>, (values: Partial<Record<N, string>>) => void] {
  const { path, search } = usePlace();
  const asked = new URLSearchParams(search);
  const values = Object.fromEntries(names.map((name) => [name, asked.get(name) ?? ""])) as Record<N, string>;
  const change = (changes: Partial<Record<N, string>>) => {
    const next = new URLSearchParams(location.search);
    for (const [name, value] of Object.entries<string | undefined>(changes)) value ? next.set(name, value) : next.delete(name);
    const text = next.toString();
    go(text ? `${path}?${text}` : path, "replace");
  };
  return [values, change];
}

/** The variables of a pattern such as `/p/:project/webhooks`, if the path is of it. */
export function match(pattern: string, path: string): Record<string, string> | null {
  const wanted = pattern.split("/");
  const parts = path.replace(/\/$/, "").split("/");
  if (wanted.length !== parts.length) return null;
  const values: Record<string, string> = {};
  for (const [n, word] of wanted.entries()) {
    const part = parts[n] ?? "";
    if (!word.startsWith(":")) {
      if (word !== part) return null;
    } else {
      try {
        values[word.slice(1)] = decodeURIComponent(part);
      } catch {
        return null;
      }
    }
  }
  return values;
}

type LinkProps = { to: string; class?: string; children: ComponentChildren; current?: boolean; label?: string };

/** A link to a page of the console, and to nowhere else. */
export function Link({ to, current, children, label, class: name }: LinkProps): JSX.Element {
  const follow = (event: MouseEvent) => {
    if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(to);
  };
  return (
    <a href={base + to} class={name} onClick={follow} aria-current={current ? "page" : undefined} aria-label={label}>
      {children}
    </a>
  );
}

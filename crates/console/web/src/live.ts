// Server-sent events. The browser comes again by itself, with the id of the last event it has seen; where it was refused
// it does not, and then we do.

import { useEffect, useRef, useState } from "preact/hooks";

import { get } from "./api";
import type { Session } from "./openapi";

export type LiveState = "connecting" | "live" | "away";

const AGAIN_AFTER_MS = 5000;

/** Follows a stream; `onEvent` is given the name and the text of each event. An event `done` ends it. */
export function useLive(path: string | null, names: readonly string[], onEvent: (name: string, text: string) => void): LiveState {
  const [state, setState] = useState<LiveState>("connecting");
  const told = useRef(onEvent);
  told.current = onEvent;
  useEffect(() => {
    if (path === null) return;
    let source: EventSource;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const open = () => {
      source = new EventSource(path);
      source.onopen = () => setState("live");
      source.onerror = () => {
        setState("away");
        if (source.readyState !== EventSource.CLOSED) return;
        // A stream does not say why it is refused. If the session is over, this does.
        get<Session>("/v1/session").catch(() => {});
        timer = setTimeout(open, AGAIN_AFTER_MS);
      };
      names.forEach((name) =>
        source.addEventListener(name, (event) => {
          if (name === "done") source.close();
          told.current(name, (event as MessageEvent<string>).data);
        }),
      );
    };
    setState("connecting");
    open();
    return () => {
      clearTimeout(timer);
      source.close();
    };
  }, [path]);
  return state;
}

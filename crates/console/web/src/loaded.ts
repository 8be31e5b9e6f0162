// What a page shows of the API. What is there stays while it is asked for again, so nothing flickers.

import { useCallback, useEffect, useRef, useState } from "preact/hooks";

import { call, type Failure, get, type Page } from "./api";
import { isSomebodyThere } from "./presence";

export type Loaded<T> = { value?: T; etag: string | null; failure?: Failure; reload(): void; put(value: T): void };

/** The answer to a GET; with `every`, asked for again after so many milliseconds, while somebody looks. */
export function useLoaded<T>(path: string | null, every?: number): Loaded<T> {
  const [state, setState] = useState<{ path: string | null; value?: T; etag: string | null; failure?: Failure }>({ path, etag: null });
  const [turn, setTurn] = useState(0);
  const reload = useCallback(() => setTurn((turn) => turn + 1), []);
  useEffect(() => {
    if (path === null) return;
    const abort = new AbortController();
    call<T>("GET", path, { signal: abort.signal }).then(
      ({ body, etag }) => setState({ path, value: body, etag }),
      (failure: Failure) => {
        if (abort.signal.aborted) return;
        // Of what is shown already, a service that does not answer for a moment takes nothing away.
        setState((before) => (before.path === path && before.value !== undefined && every ? before : { path, etag: null, failure }));
      },
    );
    return () => abort.abort();
  }, [path, turn]);
  useEffect(() => {
    if (!every) return;
    const timer = setInterval(() => isSomebodyThere() && reload(), every);
    return () => clearInterval(timer);
  }, [every, reload]);
  const put = useCallback((value: T) => setState({ path, value, etag: null }), [path]);
  const isOf = state.path === path;
  return {
    ...(isOf && state.value !== undefined && { value: state.value }),
    etag: isOf ? state.etag : null,
    ...(isOf && state.failure && { failure: state.failure }),
    reload,
    put,
  };
}

export type Pages<T> = { items?: T[]; failure?: Failure; next: string | null; isLoading: boolean; more(): void; reload(): void };

/** The items of a list, page by page. With `every`, the first page is asked for again while it is the only one. */
export function usePages<T>(path: string, every?: number): Pages<T> {
  const first = useLoaded<Page<T>>(path, every);
  const [further, setFurther] = useState<{ path: string; items: T[]; next: string | null }[]>([]);
  const [failure, setFailure] = useState<Failure>();
  const [isLoading, setIsLoading] = useState(false);
  const current = useRef(path);
  useEffect(() => {
    current.current = path;
    setFurther([]);
    setFailure(undefined);
  }, [path]);
  const mine = further.filter((page) => page.path === path);
  const next = mine.length ? (mine.at(-1)?.next ?? null) : (first.value?.next ?? null);
  const more = () => {
    if (!next || isLoading) return;
    setIsLoading(true);
    get<Page<T>>(`${path}${path.includes("?") ? "&" : "?"}cursor=${encodeURIComponent(next)}`)
      .then(
        (page) => current.current === path && setFurther((pages) => [...pages, { path, ...page }]),
        (failure: Failure) => setFailure(failure),
      )
      .finally(() => setIsLoading(false));
  };
  const reload = () => {
    setFurther([]);
    first.reload();
  };
  const why = failure ?? first.failure;
  return {
    ...(first.value && { items: [...first.value.items, ...mine.flatMap((page) => page.items)] }),
    ...(why && { failure: why }),
    next,
    isLoading,
    more,
    reload,
  };
}

/** Something that a person asks for: whether it is under way, and why it failed. */
export function useAction(): { isBusy: boolean; failure: Failure | undefined; run(what: () => Promise<unknown>): Promise<boolean>; clear(): void } {
  const [isBusy, setIsBusy] = useState(false);
  const [failure, setFailure] = useState<Failure>();
  const run = async (what: () => Promise<unknown>) => {
    setIsBusy(true);
    setFailure(undefined);
    try {
      await what();
      return true;
    } catch (failure) {
      setFailure(failure as Failure);
      return false;
    } finally {
      setIsBusy(false);
    }
  };
  return { isBusy, failure, run, clear: () => setFailure(undefined) };
}

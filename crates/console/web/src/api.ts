// Requests to the REST API. The session's cookie goes along by itself; what changes something says the session's `csrf` too.

import type { Problem, Session } from "./openapi";

export type Page<T> = { items: T[]; next: string | null };

/** A request that came to nothing: the service's refusal, or no answer at all. */
export class Failure extends Error {
  constructor(
    /** 0 where there was no answer. */
    readonly status: number,
    readonly problem: Partial<Problem>,
  ) {
    super(problem.detail ?? problem.error ?? problem.title ?? `the answer was ${status}`);
  }

  /** What is wrong with the field at a JSON pointer (`#/url`), or with anything in it. */
  at(pointer: string): string | undefined {
    const errors = this.problem.errors?.filter((it) => it.pointer === pointer || it.pointer.startsWith(`${pointer}/`));
    return errors?.length ? errors.map((it) => it.detail).join("; ") : undefined;
  }
}

/** An answer, and the version of what it shows. */
export type Answer<T> = { body: T; etag: string | null };

type Options = { body?: unknown; etag?: string | null; signal?: AbortSignal };

let csrf = "";
let onEnd: () => void = () => {};

/** Who is told that the session has ended. */
export function whenSessionEnds(told: () => void): void {
  onEnd = told;
}

/** From now on requests belong to this session. */
export function enter(session: Session): Session {
  csrf = session.csrf ?? "";
  return session;
}

export async function call<T>(method: string, path: string, options: Options = {}): Promise<Answer<T>> {
  try {
    return await send<T>(method, path, options);
  } catch (failure) {
    // Somebody has logged in anew in another tab: the cookie is that session's, and so has the header to be.
    if (failure instanceof Failure && failure.status === 403 && method !== "GET" && (await isAnotherSession())) {
      return send<T>(method, path, options);
    }
    if (failure instanceof Failure && failure.status === 401 && path !== "/v1/session") onEnd();
    throw failure;
  }
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await call<T>("GET", path, signal ? { signal } : {})).body;
}

export async function post<T>(path: string, body?: unknown): Promise<T> {
  return (await call<T>("POST", path, { body: body ?? {} })).body;
}

/** The answer's text as it came, for what must not be read and written again. */
export async function getText(path: string, signal: AbortSignal): Promise<string> {
  return exchange("GET", path, { signal }).then(({ text }) => text);
}

async function isAnotherSession(): Promise<boolean> {
  const before = csrf;
  enter((await send<Session>("GET", "/v1/session", {})).body);
  return csrf !== before;
}

async function send<T>(method: string, path: string, options: Options): Promise<Answer<T>> {
  const { text, response } = await exchange(method, path, options);
  return { body: (text ? JSON.parse(text) : undefined) as T, etag: response.headers.get("etag") };
}

async function exchange(method: string, path: string, { body, etag, signal }: Options): Promise<{ text: string; response: Response }> {
  const headers: Record<string, string> = { accept: "application/json" };
  if (method !== "GET") {
    headers["x-csrf-token"] = csrf;
    headers["content-type"] = "application/json";
  }
  if (etag) headers["if-match"] = etag;
  const init: RequestInit = { method, headers, cache: "no-store", credentials: "same-origin", signal: signal ?? null };
  if (body !== undefined) init.body = JSON.stringify(body);
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Failure(0, { detail: "the service cannot be reached" });
  }
  const text = await response.text();
  if (!response.ok) throw refusal(response, text);
  return { text, response };
}

function refusal(response: Response, text: string): Failure {
  let problem: Partial<Problem> = {};
  try {
    problem = JSON.parse(text) as Partial<Problem>;
  } catch {
    problem = { title: response.statusText || `the answer was ${response.status}` };
  }
  const wait = response.headers.get("retry-after");
  if (response.status === 429 && wait) problem = { ...problem, detail: `${problem.error ?? "too many requests"}; try again in ${wait} s` };
  return new Failure(response.status, problem);
}

/** A path of the API, its variables encoded: ``path`/v1/projects/${name}` ``. */
export function path(parts: TemplateStringsArray, ...values: (string | number)[]): string {
  return parts.reduce((whole, part, n) => `${whole}${encodeURIComponent(values[n - 1] ?? "")}${part}`);
}

/** With a query of what is not empty. */
export function query(base: string, values: Record<string, string | number | undefined | null>): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) if (value !== undefined && value !== null && value !== "") search.set(name, String(value));
  const text = search.toString();
  return text ? `${base}?${text}` : base;
}

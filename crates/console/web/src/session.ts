// Who is logged in. There is one session for the whole page.

import { createContext } from "preact";
import { useContext, useEffect, useState } from "preact/hooks";

import { call, enter, type Failure, whenSessionEnds } from "./api";
import type { Session } from "./openapi";

export type Login = {
  /** `undefined` while it is not known yet. */
  session: Session | null | undefined;
  /** Whether there was one, and it has ended by itself. */
  hasEnded: boolean;
  /** Why it cannot be said, where the service does not answer. */
  failure?: Failure;
  login(token: string): Promise<void>;
  logout(): Promise<void>;
};

export function useLogin(): Login {
  const [session, setSession] = useState<Session | null | undefined>(undefined);
  const [hasEnded, setHasEnded] = useState(false);
  const [failure, setFailure] = useState<Failure>();
  useEffect(() => {
    whenSessionEnds(() => {
      setHasEnded(true);
      setSession(null);
    });
    call<Session>("GET", "/v1/session").then(
      ({ body }) => setSession(enter(body)),
      (failure: Failure) => (failure.status === 401 ? setSession(null) : setFailure(failure)),
    );
  }, []);
  const login = async (token: string) => {
    const { body } = await call<Session>("POST", "/v1/session", { body: { token } });
    setHasEnded(false);
    setSession(enter(body));
  };
  const logout = async () => {
    await call("DELETE", "/v1/session", { body: {} });
    setHasEnded(false);
    setSession(null);
  };
  return { session, hasEnded, ...(failure && { failure }), login, logout };
}

export const Current = createContext<Session | null>(null);

/** The session, within pages. */
export function useSession(): Session {
  const session = useContext(Current);
  if (!session) throw new Error("there is no session outside of one");
  return session;
}

/** Whether the session's token allows this. */
export function useMay(scope: "admin" | "configure" | "publish" | "read"): boolean {
  const { scopes } = useSession();
  return scopes.includes(scope) || scopes.includes("admin") || (scope === "read" && scopes.includes("configure"));
}

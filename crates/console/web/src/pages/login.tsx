import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";

import { Button } from "../components/button";
import { TextField } from "../components/field";
import { Mark } from "../components/mark";
import { ProblemBox } from "../components/problem";
import { useAction } from "../loaded";
import type { Login } from "../session";

export function LoginPage({ login }: { login: Login }): JSX.Element {
  const [token, setToken] = useState("");
  const { isBusy, failure, run } = useAction();
  useEffect(() => {
    document.title = "Log in · Posthaste";
  }, []);
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    if (!isBusy) void run(() => login.login(token.trim()));
  };
  return (
    <main class="login">
      <form class="card" onSubmit={submit}>
        <h1>
          <Mark /> Posthaste
        </h1>
        {login.hasEnded && (
          <p class="note" role="status">
            The session has ended. Log in again, and you are back where you were.
          </p>
        )}
        {/* Password managers keep a password by its user. */}
        <input type="text" name="username" autocomplete="username" value="posthaste" readOnly hidden />
        <TextField
          label="Token"
          type="password"
          autocomplete="current-password"
          value={token}
          onValue={setToken}
          hint="A project's token, or the administrator's."
          error={failure?.status === 401 ? "This token is not valid." : undefined}
          autoFocus
        />
        {failure?.status !== 401 && <ProblemBox failure={failure} />}
        <Button kind="first" type="submit" isBusy={isBusy} disabled={!token.trim()}>
          Log in
        </Button>
      </form>
    </main>
  );
}

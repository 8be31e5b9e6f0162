import type { JSX } from "preact";
import { useState } from "preact/hooks";

import { call, path, post } from "../api";
import type { InProject } from "../app";
import { Button } from "../components/button";
import { Confirm } from "../components/confirm";
import { Dialog } from "../components/dialog";
import { CheckField, TextField } from "../components/field";
import { Page } from "../components/page";
import { ProblemBox } from "../components/problem";
import { SecretDialog } from "../components/secret";
import { type Column, List } from "../components/table";
import { Time } from "../components/time";
import { useAction, usePages } from "../loaded";
import type { CreatedToken, Scope, Token } from "../openapi";
import { useSession } from "../session";
import { instant } from "./events";

const scopes: readonly (readonly [Scope, string])[] = [
  ["configure", "webhooks and event types, and reading"],
  ["publish", "publishing events"],
  ["read", "reading webhooks and the log"],
  ["admin", "everything in this project, tokens as well"],
];

export function TokensPage({ project }: InProject): JSX.Element {
  const base = path`/v1/projects/${project}/tokens`;
  const pages = usePages<Token>(base);
  const own = useSession().token;
  const [isCreating, setIsCreating] = useState(false);
  const [made, setMade] = useState<CreatedToken>();
  const [revoked, setRevoked] = useState<Token>();
  const columns: Column<Token>[] = [
    { name: "Name", class: "first", show: (token) => token.name },
    { name: "Allows", show: (token) => token.scopes.join(", ") },
    { name: "Expires", show: (token) => <Time at={token.expires_at} none="never" /> },
    { name: "Last used", show: (token) => <Time at={token.last_used_at} none="never" /> },
    { name: "Created", show: (token) => <Time at={token.created_at} /> },
    { name: "Id", show: (token) => <code class="clipped">{token.id}</code> },
    {
      name: "Actions",
      show: (token) =>
        token.id === own ? (
          <span class="faint">this session's</span>
        ) : (
          <Button kind="quiet" onClick={() => setRevoked(token)} label={`Revoke ${token.name}`}>
            Revoke
          </Button>
        ),
    },
  ];
  const create = (
    <Button kind="first" onClick={() => setIsCreating(true)}>
      New token
    </Button>
  );
  return (
    <Page title="Tokens" actions={create}>
      <List caption="Tokens" columns={columns} pages={pages} keyOf={(token) => token.id} empty={<p>The project has no token. Producers need one to publish, people to look.</p>} />
      {isCreating && (
        <NewTokenDialog
          base={base}
          onClose={() => setIsCreating(false)}
          onMade={(token) => {
            setIsCreating(false);
            setMade(token);
            pages.reload();
          }}
        />
      )}
      {made && (
        <SecretDialog title={`The token ${made.name}`} secret={made.token} onClose={() => setMade(undefined)}>
          It is shown this once. Whoever has it may do what it allows.
        </SecretDialog>
      )}
      {revoked && (
        <Confirm
          title={`Revoke ${revoked.name}?`}
          verb="Revoke"
          isDangerous
          act={() => call("DELETE", `${base}/${encodeURIComponent(revoked.id)}`).then(pages.reload)}
          onClose={() => setRevoked(undefined)}
        >
          <p>It is good for nothing any more, within seconds. This cannot be undone.</p>
        </Confirm>
      )}
    </Page>
  );
}

function NewTokenDialog({ base, onClose, onMade }: { base: string; onClose: () => void; onMade: (token: CreatedToken) => void }): JSX.Element {
  const [name, setName] = useState("");
  const [chosen, setChosen] = useState<readonly Scope[]>(["configure", "publish", "read"]);
  const [expires, setExpires] = useState("");
  const { isBusy, failure, run } = useAction();
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    if (isBusy) return;
    const body = { name: name || null, scopes: chosen, expires_at: instant(expires) || null };
    void run(async () => onMade(await post<CreatedToken>(base, body)));
  };
  return (
    <Dialog title="New token" onClose={onClose}>
      <form onSubmit={submit}>
        <TextField label="Name" value={name} onValue={setName} error={failure?.at("#/name")} hint="For people: who has it?" autoFocus />
        <fieldset>
          <legend>It allows</legend>
          {scopes.map(([scope, what]) => (
            <CheckField
              key={scope}
              label={`${scope}: ${what}`}
              checked={chosen.includes(scope)}
              onChecked={(isOn) => setChosen(isOn ? [...chosen, scope] : chosen.filter((it) => it !== scope))}
            />
          ))}
        </fieldset>
        <TextField label="Expires" type="datetime-local" value={expires} onValue={setExpires} error={failure?.at("#/expires_at")} hint="Empty: never." />
        <ProblemBox failure={failure} />
        <div class="actions end">
          <Button onClick={onClose}>Cancel</Button>
          <Button kind="first" type="submit" isBusy={isBusy} disabled={!chosen.length}>
            Create
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useState } from "preact/hooks";

import { path, query } from "../api";
import { useLive } from "../live";
import { usePages } from "../loaded";
import type { Attempt } from "../openapi";
import { attemptColumns } from "./attempt-columns";
import { Badge } from "./badge";
import { Section } from "./page";
import { List } from "./table";

type LiveAttemptsProps = {
  project: string;
  filters: Record<string, string>;
  empty: string;
  hasWebhook?: boolean;
  children?: ComponentChildren;
};

/** How many of those that come are kept on the page. */
const KEPT = 200;

/** Attempts, newest first, and each further one as it is recorded. */
export function LiveAttempts({ project, filters, empty, hasWebhook = true, children }: LiveAttemptsProps): JSX.Element {
  const base = path`/v1/projects/${project}/attempts`;
  const pages = usePages<Attempt>(query(base, { limit: 25, ...filters }));
  const [come, setCome] = useState<Attempt[]>([]);
  const stream = query(`${base}/stream`, filters);
  useEffect(() => setCome([]), [stream]);
  const state = useLive(stream, ["attempt"], (_, text) => {
    const attempt = JSON.parse(text) as Attempt;
    setCome((before) => [attempt, ...before.filter((it) => it.id !== attempt.id)].slice(0, KEPT));
  });
  const known = new Set(come.map((attempt) => attempt.id));
  const all = pages.items && [...come, ...pages.items.filter((attempt) => !known.has(attempt.id))];
  return (
    <Section
      title="Attempts"
      beside={
        <>
          <Badge state={state} />
          {children}
        </>
      }
    >
      <List
        caption="Attempts"
        columns={attemptColumns(project, hasWebhook)}
        pages={{ ...pages, ...(all && { items: all }) }}
        keyOf={(attempt) => attempt.id}
        empty={<p>{empty} New ones appear here by themselves.</p>}
      />
    </Section>
  );
}

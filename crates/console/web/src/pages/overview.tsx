import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";

import { type Failure, get, type Page as PageOf, path, query } from "../api";
import type { InProject } from "../app";
import { AttemptsChart } from "../components/attempts-chart";
import { SelectField } from "../components/field";
import { Page, Section, Waiting } from "../components/page";
import { ProblemBox } from "../components/problem";
import { count, plural } from "../format";
import { useLoaded, usePages } from "../loaded";
import type { Attempt, Reconciliation, Webhook } from "../openapi";
import { isSomebodyThere } from "../presence";
import { places } from "../places";
import { Link } from "../router";

const EVERY_MS = 10_000;
/** As many attempts as are drawn: eight requests of a full page each. */
const DRAWN = 2000;
const spans = [
  ["15", "last 15 minutes"],
  ["60", "last hour"],
  ["1440", "last day"],
] as const;

export function OverviewPage({ project }: InProject): JSX.Element {
  const [minutes, setMinutes] = useState("60");
  const span = Number(minutes) * 60_000;
  // A minute is as exact as these need to be, and so it is not asked for another span each time.
  const since = new Date(Math.floor((Date.now() - span) / 60_000) * 60_000).toISOString();
  const base = path`/v1/projects/${project}`;
  const sum = useLoaded<Reconciliation>(query(`${base}/reconciliation`, { since }), EVERY_MS);
  return (
    <Page title="Overview" actions={<SelectField label="Span" value={minutes} onValue={setMinutes} options={spans} />}>
      <ProblemBox failure={sum.failure} />
      <Sums project={project} sum={sum.value} />
      <Section title="Attempts by outcome">
        <Attempts project={project} since={since} span={span} />
      </Section>
      <NotWell project={project} />
    </Page>
  );
}

function Sums({ project, sum }: { project: string; sum: Reconciliation | undefined }): JSX.Element {
  const states = sum?.states ?? {};
  const of = (...names: string[]) => (sum ? count(names.reduce((all, name) => all + (states[name] ?? 0), 0)) : "–");
  const tiles: [string, string, string, string][] = [
    ["Events", sum ? count(sum.events) : "–", places.events(project), ""],
    ["Delivered", of("delivered"), query(places.attempts(project), { status: "delivered" }), "good"],
    ["On their way", of("queued", "scheduled", "parked", "held"), places.attempts(project), "wait"],
    ["Skipped", of("skipped"), places.events(project), "off"],
    ["Dead", of("dead"), places.deadLetters(project), "bad"],
  ];
  return (
    <>
      <ul class="tiles">
        {tiles.map(([name, value, to, tone]) => (
          <li key={name}>
            <Link to={to} class={`tile ${tone}`}>
              <span class="value">{value}</span>
              <span>{name}</span>
            </Link>
          </li>
        ))}
      </ul>
      {sum && sum.difference > 0 && (
        <p class="problem" role="alert">
          {plural(sum.difference, "delivery is", "deliveries are")} in no state, and will be made due again.
        </p>
      )}
    </>
  );
}

function Attempts({ project, since, span }: { project: string; since: string; span: number }): JSX.Element {
  const [drawn, setDrawn] = useState<{ attempts: Attempt[]; isAll: boolean }>();
  const [failure, setFailure] = useState<Failure>();
  useEffect(() => {
    let isCurrent = true;
    const load = () =>
      recent(project, since).then(
        (drawn) => {
          if (!isCurrent) return;
          setDrawn(drawn);
          setFailure(undefined);
        },
        (failure: Failure) => isCurrent && setFailure(failure),
      );
    void load();
    const timer = setInterval(() => isSomebodyThere() && void load(), EVERY_MS);
    return () => {
      isCurrent = false;
      clearInterval(timer);
    };
  }, [project, since]);
  if (!drawn) return <Waiting failure={failure} />;
  if (!drawn.attempts.length) return <div class="empty">No request was made in this time.</div>;
  return (
    <>
      <AttemptsChart attempts={drawn.attempts} span={span} />
      {!drawn.isAll && <p class="faint">Only the newest {count(DRAWN)} attempts are drawn.</p>}
    </>
  );
}

async function recent(project: string, since: string): Promise<{ attempts: Attempt[]; isAll: boolean }> {
  const attempts: Attempt[] = [];
  let cursor: string | null = null;
  do {
    const at: string = query(path`/v1/projects/${project}/attempts`, { since, limit: 250, cursor });
    const page: PageOf<Attempt> = await get(at);
    attempts.push(...page.items);
    cursor = page.next;
  } while (cursor && attempts.length < DRAWN);
  return { attempts, isAll: !cursor };
}

/** The webhooks that somebody should look at. */
function NotWell({ project }: { project: string }): JSX.Element | null {
  const base = path`/v1/projects/${project}/webhooks`;
  const lists = [usePages<Webhook>(`${base}?state=failed`, EVERY_MS), usePages<Webhook>(`${base}?state=disabled`, EVERY_MS), usePages<Webhook>(`${base}?state=pending`, EVERY_MS)];
  const hooks = lists.flatMap((list) => list.items ?? []);
  if (!hooks.length) return null;
  return (
    <Section title="Webhooks that get nothing">
      <ul class="plain">
        {hooks.map((hook) => (
          <li key={hook.id}>
            <Link to={places.webhook(project, hook.id)}>{hook.name}</Link>: {hook.state}, {hook.state_reason}
          </li>
        ))}
      </ul>
    </Section>
  );
}

import type { JSX } from "preact";

import { path, query } from "../api";
import type { InProject } from "../app";
import { Badge } from "../components/badge";
import { LiveAttempts } from "../components/live-attempts";
import { Page, Section, Waiting } from "../components/page";
import { ProblemBox } from "../components/problem";
import { useLoaded } from "../loaded";
import type { Webhook } from "../openapi";
import { places } from "../places";
import { Link } from "../router";
import { Definition, Health } from "./webhook-definition";
import { WebhookActions } from "./webhook-actions";

const EVERY_MS = 3000;

export function WebhookPage({ project, variables }: InProject): JSX.Element {
  const id = variables.webhook ?? "";
  const base = path`/v1/projects/${project}/webhooks/${id}`;
  const { value: hook, failure, reload, put } = useLoaded<Webhook>(base, EVERY_MS);
  const over = <Link to={places.webhooks(project)}>Webhooks</Link>;
  if (!hook) {
    return (
      <Page title="Webhook" over={over}>
        <Waiting failure={failure} retry={reload} />
      </Page>
    );
  }
  const actions = <WebhookActions project={project} base={base} hook={hook} put={put} />;
  return (
    <Page title={hook.name} over={over} beside={<Badge state={hook.state} reason={hook.state_reason} />} actions={actions}>
      <ProblemBox failure={failure} />
      {hook.description && <p class="lead">{hook.description}</p>}
      <Health hook={hook} />
      <LiveAttempts project={project} filters={{ webhook: hook.id }} empty="No request has been made to it yet." hasWebhook={false}>
        <Link to={query(places.attempts(project), { webhook: hook.id })}>All attempts</Link>
      </LiveAttempts>
      <Section title="Definition" beside={<span class="faint">revision {hook.revision}</span>}>
        <Definition hook={hook} />
      </Section>
    </Page>
  );
}

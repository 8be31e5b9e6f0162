import type { JSX } from "preact";

import { path, query } from "../api";
import type { InProject } from "../app";
import { Badge } from "../components/badge";
import { FilterBar } from "../components/filters";
import { Page } from "../components/page";
import { type Column, List } from "../components/table";
import { Time } from "../components/time";
import { usePages } from "../loaded";
import type { Webhook } from "../openapi";
import { places } from "../places";
import { Link, useFilters } from "../router";
import { useMay } from "../session";

const EVERY_MS = 5000;
const states = ["active", "pending", "paused", "failed", "disabled"];

function columnsOf(project: string): Column<Webhook>[] {
  return [
    {
      name: "Name",
      class: "first",
      show: (hook) => (
        <>
          <Link to={places.webhook(project, hook.id)}>{hook.name}</Link>
          {hook.description && <span class="below clipped">{hook.description}</span>}
          {Object.keys(hook.labels).length > 0 && (
            <span class="below">
              <Words words={Object.entries(hook.labels).map(([key, value]) => `${key}: ${value}`)} />
            </span>
          )}
        </>
      ),
    },
    { name: "URL", show: (hook) => <code class="clipped">{hook.url}</code> },
    { name: "Events", class: "roomy", show: (hook) => <Words words={hook.events} /> },
    { name: "State", class: "roomy", show: (hook) => <Badge state={hook.state} reason={hook.state_reason} /> },
    {
      name: "Last delivered",
      show: (hook) => (
        <>
          <Time at={hook.health.last_delivered_at} none="never" />
          {hook.health.failures_in_a_row > 0 && <span class="below bad">{hook.health.failures_in_a_row} failed since</span>}
        </>
      ),
    },
  ];
}

/** A few of the words, and how many more there are. */
function Words({ words }: { words: string[] }): JSX.Element {
  const shown = words.slice(0, 3);
  return (
    <span class="words">
      {shown.map((word) => (
        <code key={word} class="clipped">
          {word}
        </code>
      ))}
      {words.length > shown.length && <span class="faint">+{words.length - shown.length}</span>}
    </span>
  );
}

export function WebhooksPage({ project }: InProject): JSX.Element {
  const [filters, change] = useFilters(["name", "state", "event", "label"]);
  const pages = usePages<Webhook>(query(path`/v1/projects/${project}/webhooks`, filters), EVERY_MS);
  const mayChange = useMay("configure");
  const create = mayChange && (
    <Link to={places.newWebhook(project)} class="button first">
      New webhook
    </Link>
  );
  const isFiltered = Object.values(filters).some(Boolean);
  return (
    <Page title="Webhooks" actions={create}>
      <FilterBar
        fields={[
          { name: "name", label: "Name contains" },
          { name: "state", label: "State", options: states },
          { name: "event", label: "Gets the event", placeholder: "invoice.paid" },
          { name: "label", label: "Label", placeholder: "team:blue" },
        ]}
        values={filters}
        onChange={change}
      />
      <List
        caption="Webhooks"
        columns={columnsOf(project)}
        pages={pages}
        keyOf={(hook) => hook.id}
        empty={isFiltered ? <p>No webhook is like that.</p> : <p>There is no webhook yet. A webhook says where events go, and which.</p>}
      />
    </Page>
  );
}

import type { JSX } from "preact";

import { path, query } from "../api";
import type { InProject } from "../app";
import { attemptColumns } from "../components/attempt-columns";
import { FilterBar } from "../components/filters";
import { Page } from "../components/page";
import { List } from "../components/table";
import { usePages } from "../loaded";
import type { Attempt } from "../openapi";
import { useFilters } from "../router";
import { instant } from "./events";

const EVERY_MS = 5000;
const statuses = ["delivered", "failed", "2xx", "3xx", "4xx", "5xx"];
const states = ["delivered", "scheduled", "parked", "held", "dead", "cancelled", "queued"];
const errorClasses = ["dns", "refused_address", "connect", "tls", "timeout", "status", "body", "webhook", "gave_up", "authentication"];

export function AttemptsPage({ project }: InProject): JSX.Element {
  const [filters, change] = useFilters(["search", "type", "webhook", "status", "state", "error_class", "since", "until"]);
  const asked = { ...filters, since: instant(filters.since), until: instant(filters.until) };
  const pages = usePages<Attempt>(query(path`/v1/projects/${project}/attempts`, asked), EVERY_MS);
  return (
    <Page title="Attempts">
      <FilterBar
        fields={[
          { name: "search", label: "Event's id contains" },
          { name: "type", label: "Type", placeholder: "invoice.paid" },
          { name: "webhook", label: "Webhook", placeholder: "name or id" },
          { name: "status", label: "Outcome", options: statuses },
          { name: "state", label: "Delivery is now", options: states },
          { name: "error_class", label: "Error", options: errorClasses },
          { name: "since", label: "Since", type: "datetime-local" },
          { name: "until", label: "Until", type: "datetime-local" },
        ]}
        values={filters}
        onChange={change}
      />
      <List
        caption="Attempts"
        columns={attemptColumns(project, true)}
        pages={pages}
        keyOf={(attempt) => attempt.id}
        empty={Object.values(filters).some(Boolean) ? <p>No attempt is like that.</p> : <p>No request has been made yet.</p>}
      />
    </Page>
  );
}

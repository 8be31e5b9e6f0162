import type { JSX } from "preact";
import { useState } from "preact/hooks";

import { path, query } from "../api";
import type { InProject } from "../app";
import { Button } from "../components/button";
import { TextField } from "../components/field";
import { FilterBar } from "../components/filters";
import { Page } from "../components/page";
import { type Column, List } from "../components/table";
import { Time } from "../components/time";
import { bytes } from "../format";
import { usePages } from "../loaded";
import type { Event } from "../openapi";
import { places } from "../places";
import { go, Link, useFilters } from "../router";

const EVERY_MS = 5000;

function columnsOf(project: string): Column<Event>[] {
  return [
    {
      name: "Accepted",
      class: "first",
      show: (event) => (
        <Link to={places.event(project, event.id)}>
          <Time at={event.accepted_at} />
        </Link>
      ),
    },
    { name: "Type", show: (event) => <code class="clipped">{event.type}</code> },
    { name: "Id", show: (event) => <code class="clipped">{event.id}</code> },
    { name: "Owed to", class: "number", show: (event) => event.owed.length },
    { name: "Skipped", class: "number", show: (event) => event.skipped.length },
    { name: "Size", class: "number", show: (event) => bytes(event.size) },
  ];
}

export function EventsPage({ project }: InProject): JSX.Element {
  const [filters, change] = useFilters(["type", "since", "until"]);
  const asked = { type: filters.type, since: instant(filters.since), until: instant(filters.until) };
  const pages = usePages<Event>(query(path`/v1/projects/${project}/events`, asked), EVERY_MS);
  return (
    <Page title="Events">
      <div class="bars">
        <FilterBar
          fields={[
            { name: "type", label: "Type", placeholder: "invoice.paid" },
            { name: "since", label: "Since", type: "datetime-local" },
            { name: "until", label: "Until", type: "datetime-local" },
          ]}
          values={filters}
          onChange={change}
        />
        <ById project={project} />
      </div>
      <List
        caption="Events"
        columns={columnsOf(project)}
        pages={pages}
        keyOf={(event) => event.id}
        empty={Object.values(filters).some(Boolean) ? <p>No event is like that.</p> : <p>No event has been accepted yet.</p>}
      />
    </Page>
  );
}

/** What a field for a local time says, as an instant. */
export function instant(local: string): string {
  const time = new Date(local);
  return local && !Number.isNaN(time.getTime()) ? time.toISOString() : "";
}

function ById({ project }: { project: string }): JSX.Element {
  const [id, setId] = useState("");
  const open = (event: SubmitEvent) => {
    event.preventDefault();
    if (id.trim()) go(places.event(project, id.trim()));
  };
  return (
    <form class="filters" role="search" onSubmit={open}>
      <TextField label="Event's id" value={id} onValue={setId} isCode />
      <Button type="submit">Open</Button>
    </form>
  );
}

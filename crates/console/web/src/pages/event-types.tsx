import type { JSX } from "preact";

import { path } from "../api";
import type { InProject } from "../app";
import { Badge, Tag } from "../components/badge";
import { Page, Waiting } from "../components/page";
import { ProblemBox } from "../components/problem";
import { TextBlock } from "../components/text";
import { Button } from "../components/button";
import { usePages } from "../loaded";
import type { EventType, EventTypeVersion } from "../openapi";

export function EventTypesPage({ project }: InProject): JSX.Element {
  const { items, failure, next, isLoading, more, reload } = usePages<EventType>(path`/v1/projects/${project}/event-types?limit=100`);
  if (!items) {
    return (
      <Page title="Event types">
        <Waiting failure={failure} retry={reload} />
      </Page>
    );
  }
  return (
    <Page title="Event types">
      {!items.length && <div class="empty">The project has no event types of its own, and its profile has no catalogue. Events of any type are accepted.</div>}
      {items.map((type) => (
        <details class="card" key={type.name}>
          <summary>
            <code>{type.name}</code> <Tag>{type.source}</Tag> <span class="faint">{type.description}</span>
          </summary>
          {type.versions.map((version) => (
            <Version key={version.version} version={version} />
          ))}
        </details>
      ))}
      <ProblemBox failure={failure} />
      {next && (
        <div class="actions centred">
          <Button onClick={more} isBusy={isLoading}>
            Show more
          </Button>
        </div>
      )}
    </Page>
  );
}

function Version({ version }: { version: EventTypeVersion }): JSX.Element {
  const json = (value: unknown) => (value === null || value === undefined ? null : JSON.stringify(value));
  return (
    <section>
      <h3>
        Version {version.version} {version.deprecated && <Badge state="deprecated" />}
      </h3>
      <div class="halves">
        <div>
          <h4>Example</h4>
          <TextBlock text={json(version.example)} label="Example" none="none" />
        </div>
        <div>
          <h4>Schema</h4>
          <TextBlock text={json(version.schema)} label="Schema" none="none: anything is allowed" />
        </div>
      </div>
    </section>
  );
}

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";

import { type Failure, getText, path, post, query } from "../api";
import type { InProject } from "../app";
import { Badge } from "../components/badge";
import { Button } from "../components/button";
import { Confirm } from "../components/confirm";
import { LiveAttempts } from "../components/live-attempts";
import { Fact, Facts, Page, Section, Waiting } from "../components/page";
import { type Column, List } from "../components/table";
import { Lines, TextBlock } from "../components/text";
import { Time } from "../components/time";
import { bytes } from "../format";
import { memberText } from "../json-text";
import { usePages } from "../loaded";
import type { Delivery, EventWithData, Replay } from "../openapi";
import { places } from "../places";
import { go, Link } from "../router";
import { useMay } from "../session";

const EVERY_MS = 3000;

/** The event, and the text of its payload as it was published. */
function useEvent(at: string): { event?: EventWithData; payload?: string | undefined; failure?: Failure } {
  const [state, setState] = useState<{ event?: EventWithData; payload?: string | undefined; failure?: Failure }>({});
  useEffect(() => {
    const abort = new AbortController();
    getText(at, abort.signal).then(
      (text) => {
        const event = JSON.parse(text) as EventWithData;
        setState({ event, payload: memberText(text, "data") ?? event.data_base64 ?? undefined });
      },
      (failure: Failure) => abort.signal.aborted || setState({ failure }),
    );
    return () => abort.abort();
  }, [at]);
  return state;
}

export function EventPage({ project, variables }: InProject): JSX.Element {
  const id = variables.event ?? "";
  const base = path`/v1/projects/${project}/events/${id}`;
  const { event, payload, failure } = useEvent(base);
  const [isAsked, setIsAsked] = useState(false);
  const mayReplay = useMay("configure");
  const over = <Link to={places.events(project)}>Events</Link>;
  if (!event) {
    return (
      <Page title="Event" over={over}>
        <Waiting failure={failure} />
      </Page>
    );
  }
  const replay = async () => {
    const { number } = await post<Replay>(`${base}:replay`);
    go(places.replay(project, String(number)));
  };
  return (
    <Page title={event.type} over={over} actions={mayReplay && <Button onClick={() => setIsAsked(true)}>Replay</Button>}>
      <div class="card">
        <Facts>
          <Fact name="Id">
            <code>{event.id}</code>
          </Fact>
          <Fact name="Happened">
            <Time at={event.occurred_at} />
          </Fact>
          <Fact name="Accepted">
            <Time at={event.accepted_at} />
          </Fact>
          <Fact name="Payload">
            {event.content_type}, {bytes(event.size)}
          </Fact>
        </Facts>
      </div>
      {event.warnings.length > 0 && (
        <div class="note">
          <p>Its type's schema has this against it:</p>
          <ul>
            {event.warnings.map((warning, n) => (
              <li key={n}>{warning}</li>
            ))}
          </ul>
        </div>
      )}
      <Deliveries project={project} event={event.id} />
      <Section title="Payload">
        <TextBlock text={payload} label="Payload" />
      </Section>
      {Object.keys(event.attributes).length > 0 && (
        <Section title="Attributes">
          <Lines lines={Object.entries(event.attributes).map(([key, value]) => ({ key, value }))} label="Attributes" />
        </Section>
      )}
      <LiveAttempts project={project} filters={{ event_id: event.id }} empty="No request has been made for it yet." />
      {isAsked && (
        <Confirm title="Replay this event?" verb="Replay" act={replay} onClose={() => setIsAsked(false)}>
          <p>Every webhook that it was owed to, or that was skipped, gets it again, signed anew, whatever became of it before.</p>
        </Confirm>
      )}
    </Page>
  );
}

function Deliveries({ project, event }: { project: string; event: string }): JSX.Element {
  const pages = usePages<Delivery>(query(path`/v1/projects/${project}/deliveries`, { event_id: event }), EVERY_MS);
  const columns: Column<Delivery>[] = [
    { name: "Webhook", class: "first", show: (delivery) => <Link to={places.webhook(project, delivery.webhook)}>{delivery.webhook_name ?? delivery.webhook}</Link> },
    { name: "State", show: (delivery) => <Badge state={delivery.state} reason={delivery.reason} /> },
    { name: "Attempts", class: "number", show: (delivery) => delivery.attempts },
    { name: "Run", class: "number", show: (delivery) => delivery.run },
    { name: "Next attempt", show: (delivery) => <Time at={delivery.next_attempt_at} /> },
    { name: "Changed", show: (delivery) => <Time at={delivery.updated_at} /> },
  ];
  return (
    <Section title="Deliveries">
      <List caption="Deliveries" columns={columns} pages={pages} keyOf={(delivery) => delivery.webhook} empty={<p>No webhook wanted it.</p>} />
    </Section>
  );
}

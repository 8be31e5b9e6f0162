import type { JSX } from "preact";
import { useState } from "preact/hooks";

import { path, query } from "../api";
import type { InProject } from "../app";
import { Button } from "../components/button";
import { Page, Section } from "../components/page";
import { ReplayDialog } from "../components/replay-dialog";
import { type Column, List } from "../components/table";
import { Time } from "../components/time";
import { count } from "../format";
import { usePages } from "../loaded";
import type { Page_DeadLetterGroup, Replay } from "../openapi";
import { Badge } from "../components/badge";
import { places } from "../places";
import { Link } from "../router";
import { useMay } from "../session";

type Group = Page_DeadLetterGroup["items"][number];

const EVERY_MS = 5000;

export function DeadLettersPage({ project }: InProject): JSX.Element {
  const pages = usePages<Group>(query(path`/v1/projects/${project}/dead-letters`, { group_by: "webhook,reason" }), EVERY_MS);
  const [asked, setAsked] = useState<{ group?: Group; kind: "replay" | "discard" }>();
  const mayReplay = useMay("configure");
  const columns: Column<Group>[] = [
    { name: "Webhook", class: "first", show: (group) => (group.webhook ? <Link to={places.webhook(project, group.webhook)}>{group.webhook_name ?? group.webhook}</Link> : "–") },
    { name: "Reason", show: (group) => group.reason ?? "–" },
    { name: "Deliveries", class: "number", show: (group) => count(group.deliveries) },
    { name: "Oldest event", show: (group) => <Time at={group.oldest_event_at} /> },
    { name: "Last died", show: (group) => <Time at={group.last_at} /> },
  ];
  if (mayReplay) {
    columns.push({
      name: "Actions",
      show: (group) => (
        <span class="actions">
          <Button onClick={() => setAsked({ group, kind: "replay" })}>Replay</Button>
          <Button kind="quiet" onClick={() => setAsked({ group, kind: "discard" })}>
            Discard
          </Button>
        </span>
      ),
    });
  }
  const hasAny = (pages.items?.length ?? 0) > 0;
  return (
    <Page title="Dead letters" actions={mayReplay && hasAny && <Button onClick={() => setAsked({ kind: "replay" })}>Replay all</Button>}>
      <List
        caption="Dead letters by webhook and reason"
        columns={columns}
        pages={pages}
        keyOf={(group) => `${group.webhook} ${group.reason}`}
        empty={<p>There are none: whatever was owed has been delivered, or is on its way.</p>}
      />
      <Replays project={project} />
      {asked && (
        <ReplayDialog
          project={project}
          kind={asked.kind}
          selection={asked.group ? { ...(asked.group.webhook && { webhooks: [asked.group.webhook] }), ...(asked.group.reason && { reasons: [asked.group.reason] }) } : {}}
          onClose={() => setAsked(undefined)}
        />
      )}
    </Page>
  );
}

function Replays({ project }: { project: string }): JSX.Element {
  const pages = usePages<Replay>(path`/v1/projects/${project}/replays?limit=10`, EVERY_MS);
  const columns: Column<Replay>[] = [
    { name: "Number", class: "first", show: (replay) => <Link to={places.replay(project, String(replay.number))}>{`${replay.kind} ${replay.number}`}</Link> },
    { name: "State", show: (replay) => <Badge state={replay.state} /> },
    { name: "Done", class: "number", show: ({ progress }) => `${count(progress.done)} of ${progress.total === null ? "?" : count(progress.total)}` },
    { name: "Failed", class: "number", show: ({ progress }) => count(progress.failed) },
    { name: "Asked for by", show: (replay) => replay.token_name },
    { name: "Begun", show: (replay) => <Time at={replay.created_at} /> },
  ];
  return (
    <Section title="Replays">
      <List caption="Replays" columns={columns} pages={pages} keyOf={(replay) => replay.id} empty={<p>Nothing has been replayed or discarded yet.</p>} />
    </Section>
  );
}

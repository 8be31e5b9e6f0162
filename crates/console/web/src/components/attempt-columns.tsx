import { milliseconds } from "../format";
import type { Attempt } from "../openapi";
import { places } from "../places";
import { Link } from "../router";
import { Badge, Tag } from "./badge";
import type { Column } from "./table";
import { Time } from "./time";

export function attemptColumns(project: string, hasWebhook: boolean): Column<Attempt>[] {
  const webhook: Column<Attempt> = {
    name: "Webhook",
    show: (attempt) =>
      attempt.webhook_name === null ? (
        <code class="faint">{attempt.webhook}</code>
      ) : (
        <Link to={places.webhook(project, attempt.webhook)}>{attempt.webhook_name}</Link>
      ),
  };
  return [
    {
      name: "Time",
      class: "first",
      show: (attempt) => (
        <Link to={places.attempt(project, attempt.id)}>
          <Time at={attempt.started_at} />
        </Link>
      ),
    },
    ...(hasWebhook ? [webhook] : []),
    {
      name: "Event",
      show: (attempt) => (
        <>
          <code class="clipped">{attempt.event_type}</code>
          <span class="below">
            {attempt.trial ? (
              <code class="clipped">{attempt.event_id}</code>
            ) : (
              <Link to={places.event(project, attempt.event_id)}>
                <code class="clipped">{attempt.event_id}</code>
              </Link>
            )}
          </span>
        </>
      ),
    },
    {
      name: "Outcome",
      show: (attempt) => (
        <>
          <Badge state={attempt.outcome} reason={attempt.error} />
          {attempt.trial && <Tag>{attempt.trial}</Tag>}
          {attempt.replay && <Tag>replay</Tag>}
        </>
      ),
    },
    { name: "Answer", class: "number", show: (attempt) => attempt.status ?? "–" },
    { name: "Attempt", class: "number", show: (attempt) => attempt.attempt },
    { name: "Took", class: "number", show: (attempt) => milliseconds(attempt.duration_ms) },
    { name: "Next attempt", show: (attempt) => <Time at={attempt.next_attempt_at} /> },
  ];
}

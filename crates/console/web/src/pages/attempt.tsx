import type { JSX } from "preact";
import { useState } from "preact/hooks";

import { path, post } from "../api";
import type { InProject } from "../app";
import { Badge, Tag } from "../components/badge";
import { Button } from "../components/button";
import { Confirm } from "../components/confirm";
import { Fact, Facts, Page, Section, Waiting } from "../components/page";
import { Lines, TextBlock } from "../components/text";
import { Time } from "../components/time";
import { TimingBars } from "../components/timing-bars";
import { milliseconds } from "../format";
import { useLoaded } from "../loaded";
import type { Replay, Request, Response, WholeAttempt } from "../openapi";
import { places } from "../places";
import { go, Link } from "../router";
import { useMay } from "../session";

export function AttemptPage({ project, variables }: InProject): JSX.Element {
  const { value: attempt, failure, reload } = useLoaded<WholeAttempt>(path`/v1/projects/${project}/attempts/${variables.attempt ?? ""}`);
  const [isAsked, setIsAsked] = useState(false);
  const mayReplay = useMay("configure");
  const over = <Link to={places.attempts(project)}>Attempts</Link>;
  if (!attempt) {
    return (
      <Page title="Attempt" over={over}>
        <Waiting failure={failure} retry={reload} />
      </Page>
    );
  }
  const replay = async () => {
    const { number } = await post<Replay>(path`/v1/projects/${project}/deliveries/${attempt.event_id}/${attempt.webhook}` + ":replay");
    go(places.replay(project, String(number)));
  };
  return (
    <Page
      title={`Attempt ${attempt.attempt} to ${attempt.webhook_name ?? "a webhook"}`}
      over={over}
      beside={<Badge state={attempt.outcome} />}
      actions={mayReplay && !attempt.trial && <Button onClick={() => setIsAsked(true)}>Replay this delivery</Button>}
    >
      <About project={project} attempt={attempt} />
      <Section title="Where the time went">
        <TimingBars timings={attempt.timings} />
      </Section>
      <div class="halves">
        <Section title="Request">{attempt.request ? <RequestCard request={attempt.request} /> : <p class="faint">It is not on record.</p>}</Section>
        <Section title="Response">{attempt.response ? <ResponseCard status={attempt.status} response={attempt.response} /> : <p class="faint">None came.</p>}</Section>
      </div>
      {isAsked && (
        <Confirm title="Replay this delivery?" verb="Replay" act={replay} onClose={() => setIsAsked(false)}>
          <p>The webhook gets the event again, now, signed anew.</p>
        </Confirm>
      )}
    </Page>
  );
}

function About({ project, attempt }: { project: string; attempt: WholeAttempt }): JSX.Element {
  return (
    <div class="card">
      <Facts>
        <Fact name="Webhook">
          <Link to={places.webhook(project, attempt.webhook)}>{attempt.webhook_name ?? attempt.webhook}</Link>, revision {attempt.webhook_revision}
        </Fact>
        <Fact name="Event">
          <code>{attempt.event_type}</code> {attempt.trial ? <code>{attempt.event_id}</code> : <Link to={places.event(project, attempt.event_id)}>{attempt.event_id}</Link>}
        </Fact>
        <Fact name="Begun">
          <Time at={attempt.started_at} />
        </Fact>
        <Fact name="Took">{milliseconds(attempt.duration_ms)}</Fact>
        {attempt.error && (
          <Fact name="Error">
            {attempt.error_class && <Tag tone="bad">{attempt.error_class}</Tag>} {attempt.error}
          </Fact>
        )}
        <Fact name="Next attempt">
          <Time at={attempt.next_attempt_at} none="none" />
        </Fact>
        <Fact name="Talked to">{attempt.peer ? <code>{attempt.peer}</code> : <span class="faint">nobody</span>}</Fact>
        {attempt.trial && <Fact name="Made as">{attempt.trial}</Fact>}
        {attempt.replay && (
          <Fact name="Replay">
            <Link to={places.replay(project, attempt.replay)}>number {attempt.run}</Link>
          </Fact>
        )}
        {attempt.handed_out > 1 && <Fact name="Handed out">{attempt.handed_out} times: the receiver may have seen it more than once</Fact>}
      </Facts>
    </div>
  );
}

function RequestCard({ request }: { request: Request }): JSX.Element {
  return (
    <>
      {!request.reproduced && <p class="note">It can no longer be shown as it was sent{request.reason ? `: ${request.reason}` : "."}</p>}
      {request.url && (
        <p>
          <code class="break">
            {request.method} {request.url}
          </code>
        </p>
      )}
      <h3>Headers</h3>
      <Lines lines={request.headers ?? []} label="Headers of the request" />
      <h3>Body</h3>
      <TextBlock text={request.body ?? request.body_base64} label="Body of the request" />
      {request.body_sha256 && (
        <p class="faint">
          SHA-256 of the body <code class="break">{request.body_sha256}</code>
        </p>
      )}
    </>
  );
}

function ResponseCard({ status, response }: { status: number | null; response: Response }): JSX.Element {
  return (
    <>
      <p>
        <code>{status ?? "no status"}</code>
        {response.truncated && <span class="faint"> shortened to its first 16 KiB</span>}
      </p>
      <h3>Headers</h3>
      <Lines lines={response.headers} label="Headers of the response" />
      <h3>Body</h3>
      <TextBlock text={response.body ?? response.body_base64} label="Body of the response" />
    </>
  );
}

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";

import { type Failure, post } from "../api";
import { Tag } from "../components/badge";
import { TextField } from "../components/field";
import { Lines, TextBlock } from "../components/text";
import type { PreviewOfRequest } from "../openapi";
import { parsed } from "./json";

type PreviewProps = {
  /** Where it is asked for. */
  at: string;
  /** What is asked about: `webhook`, or `changes`; null while it cannot be asked. */
  subject: Record<string, unknown> | null;
  eventTypes: readonly string[];
};

/** It is asked for when typing has paused for this long. */
const PAUSE_MS = 500;

/** The request that an event would come to, as the form is now. Nothing is sent or stored. */
export function Preview({ at, subject, eventTypes }: PreviewProps): JSX.Element {
  const [type, setType] = useState("");
  const [text, setText] = useState("");
  const [shown, setShown] = useState<PreviewOfRequest>();
  const [failure, setFailure] = useState<Failure>();
  const payload = parsed(text);
  const sample = { ...(type && { type }), ...(payload.value !== undefined && { data: payload.value }) };
  const asked = subject && !payload.error ? JSON.stringify({ ...subject, ...sample }) : null;
  useEffect(() => {
    if (asked === null) return;
    let isCurrent = true;
    const timer = setTimeout(() => {
      post<PreviewOfRequest>(at, JSON.parse(asked)).then(
        (preview) => {
          if (!isCurrent) return;
          setShown(preview);
          setFailure(undefined);
        },
        (failure: Failure) => isCurrent && setFailure(failure),
      );
    }, PAUSE_MS);
    return () => {
      isCurrent = false;
      clearTimeout(timer);
    };
  }, [at, asked]);
  return (
    <aside class="card preview" aria-label="Preview">
      <h2>Preview</h2>
      <p class="hint">The request that this event would come to. Nothing is sent.</p>
      <TextField label="Event type" value={type} onValue={setType} options={eventTypes} placeholder="the first that it gets" isCode />
      <TextField label="Payload" value={text} onValue={setText} rows={3} error={payload.error} placeholder="the type's example" isCode />
      {failure && <p class="hint">No preview yet: {failure.problem.errors?.[0]?.detail ?? failure.message}</p>}
      {shown && <Shown preview={shown} isStale={failure !== undefined} isChosen={Object.keys(sample).length > 0} />}
    </aside>
  );
}

/** Whether the webhook wants an event says something only of one that somebody has chosen. */
function Shown({ preview, isStale, isChosen }: { preview: PreviewOfRequest; isStale: boolean; isChosen: boolean }): JSX.Element {
  const { request, warnings, matches } = preview;
  const missed = (["events", "attributes", "filter"] as const).filter((name) => !matches[name]);
  return (
    <div class={isStale ? "stale" : undefined}>
      {isChosen && <p>{preview.wanted ? <Tag tone="good">wanted</Tag> : <Tag tone="off">{`not wanted: ${missed.join(", ")}`}</Tag>}</p>}
      {warnings.length > 0 && (
        <ul class="warnings">
          {warnings.map((warning, n) => (
            <li key={n}>
              <code>{warning.pointer}</code> {warning.detail}
            </li>
          ))}
        </ul>
      )}
      <p>
        <code class="break">
          {request.method} {request.url}
        </code>
      </p>
      <Lines lines={request.headers} label="Headers of the request" />
      <TextBlock text={request.body ?? request.body_base64} label="Body of the request" />
    </div>
  );
}

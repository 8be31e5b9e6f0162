import type { JSX } from "preact";
import { useState } from "preact/hooks";

import { path, post } from "../api";
import { Badge } from "../components/badge";
import { Button } from "../components/button";
import { Dialog } from "../components/dialog";
import { TextField } from "../components/field";
import { Fact, Facts } from "../components/page";
import { ProblemBox } from "../components/problem";
import { TextBlock } from "../components/text";
import { milliseconds } from "../format";
import { useAction, useLoaded } from "../loaded";
import type { Test, TestWithAttempt, Webhook } from "../openapi";
import { parsed } from "../form/json";

type TestDialogProps = { project: string; base: string; hook: Webhook; onClose: () => void };

const EVERY_MS = 500;

export function TestDialog({ project, base, hook, onClose }: TestDialogProps): JSX.Element {
  const [type, setType] = useState("");
  const [text, setText] = useState("");
  const [begun, setBegun] = useState<Test>();
  const { isBusy, failure, run } = useAction();
  const payload = parsed(text);
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    if (isBusy || payload.error) return;
    const sample = { ...(type && { type }), ...(payload.value !== undefined && { data: payload.value }) };
    void run(async () => setBegun(await post<Test>(`${base}:test`, sample)));
  };
  return (
    <Dialog title={`Test ${hook.name}`} onClose={onClose} isWide>
      <form onSubmit={submit}>
        <p>One request is made at once, whatever the webhook's state, and changes nothing. The receiver sees the header posthaste-test.</p>
        <TextField label="Event type" value={type} onValue={setType} isCode error={failure?.at("#/type")} hint="Empty: the first that it gets." />
        <TextField label="Payload" value={text} onValue={setText} rows={4} isCode error={payload.error ?? failure?.at("#/data")} hint="JSON. Empty: the type's example." />
        <ProblemBox failure={failure} />
        {begun && <Result key={begun.id} at={path`/v1/projects/${project}/tests/${begun.id}`} />}
        <div class="actions end">
          <Button onClick={onClose}>Close</Button>
          <Button kind="first" type="submit" isBusy={isBusy}>
            {begun ? "Test again" : "Send the test"}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

function Result({ at }: { at: string }): JSX.Element {
  const [isOver, setIsOver] = useState(false);
  const { value, failure } = useLoaded<TestWithAttempt>(at, isOver ? undefined : EVERY_MS);
  if (value && value.status !== "pending" && !isOver) setIsOver(true);
  if (!value) return <ProblemBox failure={failure} />;
  const { attempt } = value;
  return (
    <div class="card" role="status">
      <Facts>
        <Fact name="Test">
          <Badge state={value.status} reason={value.error_message} />
        </Fact>
        {attempt && (
          <>
            <Fact name="Answer">{attempt.status ?? "none"}</Fact>
            <Fact name="Took">{milliseconds(attempt.duration_ms)}</Fact>
          </>
        )}
      </Facts>
      {attempt?.response && <TextBlock text={attempt.response.body ?? attempt.response.body_base64} label="What the receiver answered" none="The answer has no body." />}
    </div>
  );
}

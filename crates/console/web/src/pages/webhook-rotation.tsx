import type { JSX } from "preact";
import { useState } from "preact/hooks";

import { post } from "../api";
import { Button } from "../components/button";
import { Dialog } from "../components/dialog";
import { SelectField, TextField } from "../components/field";
import { ProblemBox } from "../components/problem";
import { useAction } from "../loaded";
import type { CreatedWebhook, Webhook } from "../openapi";

type RotateDialogProps = { hook: Webhook; base: string; onClose: () => void; onRotated: (hook: CreatedWebhook) => void };

const overlaps = [
  ["24h", "24 hours"],
  ["1h", "1 hour"],
  ["7d", "7 days"],
  ["0s", "none: the earlier one has leaked"],
] as const;

export function RotateDialog({ hook, base, onClose, onRotated }: RotateDialogProps): JSX.Element {
  const [overlap, setOverlap] = useState("24h");
  const [secret, setSecret] = useState("");
  const { isBusy, failure, run } = useAction();
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    if (isBusy) return;
    void run(async () => onRotated(await post<CreatedWebhook>(`${base}:rotate-secret`, { overlap, ...(secret && { secret }) })));
  };
  return (
    <Dialog title={`Rotate the secret of ${hook.name}?`} onClose={onClose}>
      <form onSubmit={submit}>
        <p>A new secret signs from now on. Earlier ones go on signing beside it, so that the receiver can be changed without a gap.</p>
        <SelectField label="Earlier secrets sign for" value={overlap} onValue={setOverlap} options={overlaps} error={failure?.at("#/overlap")} />
        <TextField
          label="New secret"
          type="password"
          value={secret}
          onValue={setSecret}
          error={failure?.at("#/secret")}
          hint="Empty: one is made up, and shown once."
        />
        <ProblemBox failure={failure} />
        <div class="actions end">
          <Button onClick={onClose}>Cancel</Button>
          <Button kind="first" type="submit" isBusy={isBusy}>
            Rotate
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";

import { path, post } from "../api";
import { plural } from "../format";
import { useAction } from "../loaded";
import type { NewReplay, Replay, ReplayCount } from "../openapi";
import { places } from "../places";
import { go } from "../router";
import { Badge } from "./badge";
import { Button } from "./button";
import { Dialog } from "./dialog";
import { TextField } from "./field";
import { ProblemBox } from "./problem";

type ReplayDialogProps = { project: string; kind: "replay" | "discard"; selection: NewReplay; onClose: () => void };

const words = {
  replay: { title: "Replay dead letters?", verb: "Replay", what: "will be made again, with the same events." },
  discard: { title: "Discard dead letters?", verb: "Discard", what: "will be put away as cancelled. A replay of what is cancelled undoes it." },
};

/** Counts first; only then is there a button that does it. */
export function ReplayDialog({ project, kind, selection, onClose }: ReplayDialogProps): JSX.Element {
  const [counted, setCounted] = useState<ReplayCount>();
  const [rate, setRate] = useState("");
  const { isBusy, failure, run } = useAction();
  const { title, verb, what } = words[kind];
  const base = path`/v1/projects/${project}`;
  const at = kind === "replay" ? `${base}/replays` : `${base}/dead-letters:discard`;
  const asked = kind === "replay" ? { states: ["dead"], ...selection } : selection;
  useEffect(() => {
    void run(async () => setCounted(await post<ReplayCount>(at, { ...asked, dry_run: true })));
  }, []);
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    if (isBusy || !counted) return;
    void run(async () => {
      const { number } = await post<Replay>(at, { ...asked, ...(kind === "replay" && rate && { rate: Number(rate) }) });
      go(places.replay(project, String(number)));
    });
  };
  return (
    <Dialog title={title} onClose={onClose}>
      <form onSubmit={submit}>
        {counted ? (
          <p role="status">
            <strong>
              {counted.complete ? "" : "More than "}
              {plural(counted.deliveries, "delivery", "deliveries")}
            </strong>{" "}
            {what}
          </p>
        ) : (
          !failure && <p role="status">Counting…</p>
        )}
        {counted && counted.by.length > 1 && (
          <ul class="plain">
            {counted.by.slice(0, 8).map((part, n) => (
              <li key={n}>
                {part.webhook_name ?? part.webhook} {part.state && <Badge state={part.state} />} {part.deliveries}
              </li>
            ))}
          </ul>
        )}
        {kind === "replay" && (
          <TextField label="At most, in a second" type="number" value={rate} onValue={setRate} error={failure?.at("#/rate")} placeholder="as fast as the operator allows" />
        )}
        <ProblemBox failure={failure} />
        <div class="actions end">
          <Button onClick={onClose}>Cancel</Button>
          <Button kind={kind === "discard" ? "danger" : "first"} type="submit" isBusy={isBusy} disabled={!counted?.deliveries}>
            {verb}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

import type { JSX } from "preact";
import { useState } from "preact/hooks";

import { path, post } from "../api";
import type { InProject } from "../app";
import { Badge } from "../components/badge";
import { Button } from "../components/button";
import { Confirm } from "../components/confirm";
import { LiveAttempts } from "../components/live-attempts";
import { Fact, Facts, Page, Waiting } from "../components/page";
import { Time } from "../components/time";
import { count } from "../format";
import { useLive } from "../live";
import { useLoaded } from "../loaded";
import type { Replay, ReplayProgress } from "../openapi";
import { places } from "../places";
import { Link } from "../router";
import { useMay } from "../session";

export function ReplayPage({ project, variables }: InProject): JSX.Element {
  const base = path`/v1/projects/${project}/replays/${variables.replay ?? ""}`;
  const { value: replay, failure, reload, put } = useLoaded<Replay>(base);
  const [isAsked, setIsAsked] = useState(false);
  const [told, setTold] = useState<ReplayProgress>();
  const mayCancel = useMay("configure");
  useLive(replay ? `${base}/progress` : null, ["progress", "done"], (_, text) => setTold(JSON.parse(text) as ReplayProgress));
  const over = <Link to={places.deadLetters(project)}>Dead letters</Link>;
  if (!replay) {
    return (
      <Page title="Replay" over={over}>
        <Waiting failure={failure} retry={reload} />
      </Page>
    );
  }
  const progress = told ?? replay.progress;
  const cancel = mayCancel && progress.state === "running" && <Button onClick={() => setIsAsked(true)}>Cancel it</Button>;
  return (
    <Page title={`${replay.kind === "discard" ? "Discard" : "Replay"} ${replay.number}`} over={over} beside={<Badge state={progress.state} />} actions={cancel}>
      <div class="card">
        <Bar progress={progress} />
        <Facts>
          <Fact name="Deliveries">{progress.total === null ? "being counted" : count(progress.total)}</Fact>
          <Fact name={replay.kind === "discard" ? "Put away" : "Delivered"}>{count(progress.done)}</Fact>
          <Fact name="Failed">{count(progress.failed)}</Fact>
          <Fact name="Waiting">{count(progress.waiting)}</Fact>
          {progress.withdrawn > 0 && <Fact name="Withdrawn">{count(progress.withdrawn)}</Fact>}
          <Fact name="Asked for by">{replay.token_name}</Fact>
          <Fact name="Begun">
            <Time at={progress.started_at ?? replay.created_at} />
          </Fact>
          <Fact name={progress.finished_at ? "Finished" : "Expected end"}>
            <Time at={progress.finished_at ?? progress.eta} />
          </Fact>
        </Facts>
      </div>
      {replay.kind === "replay" && <LiveAttempts project={project} filters={{ replay: String(replay.number) }} empty="No request has been made for it yet." />}
      {isAsked && (
        <Confirm title="Cancel this replay?" verb="Cancel the replay" act={async () => put(await post<Replay>(`${base}:cancel`))} onClose={() => setIsAsked(false)}>
          <p>What it has not begun stays as it was. What is under way comes to its end.</p>
        </Confirm>
      )}
    </Page>
  );
}

function Bar({ progress }: { progress: ReplayProgress }): JSX.Element {
  const settled = progress.done + progress.failed + progress.withdrawn;
  return <progress aria-label="Settled" max={Math.max(progress.total ?? 0, settled, 1)} value={progress.finished_at ? Math.max(progress.total ?? 0, settled, 1) : settled} />;
}

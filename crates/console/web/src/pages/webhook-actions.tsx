import type { JSX } from "preact";
import { useState } from "preact/hooks";

import { call, post } from "../api";
import { Button } from "../components/button";
import { Confirm } from "../components/confirm";
import { SecretDialog } from "../components/secret";
import type { CreatedWebhook, Webhook } from "../openapi";
import { places } from "../places";
import { go, Link } from "../router";
import { useMay } from "../session";
import { RotateDialog } from "./webhook-rotation";
import { TestDialog } from "./webhook-test";

type Asked = "pause" | "resume" | "restart" | "check" | "delete" | "test" | "rotate";
type WebhookActionsProps = { project: string; base: string; hook: Webhook; put: (hook: Webhook) => void };

export function WebhookActions({ project, base, hook, put }: WebhookActionsProps): JSX.Element | null {
  const [asked, setAsked] = useState<Asked>();
  const [secret, setSecret] = useState<string>();
  const mayChange = useMay("configure");
  if (!mayChange) return null;
  const close = () => setAsked(undefined);
  const change = (action: string) => async () => put(await post<Webhook>(`${base}:${action}`));
  const ask = (what: Asked, label: string, kind: "plain" | "danger" = "plain") => (
    <Button kind={kind} onClick={() => setAsked(what)}>
      {label}
    </Button>
  );
  return (
    <>
      <Link to={places.editWebhook(project, hook.id)} class="button plain">
        Edit
      </Link>
      {ask("test", "Test")}
      {hook.active ? ask("pause", "Pause") : ask("resume", "Resume")}
      {(hook.state === "failed" || hook.state === "disabled") && ask("restart", "Restart")}
      {hook.state === "pending" && ask("check", "Check")}
      {ask("rotate", "Rotate secret")}
      {ask("delete", "Delete", "danger")}
      {asked === "pause" && (
        <Confirm title={`Pause ${hook.name}?`} verb="Pause" act={change("pause")} onClose={close}>
          <p>It gets no events until it is resumed. {whilePaused(hook)}</p>
        </Confirm>
      )}
      {asked === "resume" && (
        <Confirm title={`Resume ${hook.name}?`} verb="Resume" act={change("resume")} onClose={close}>
          <p>It gets events again. What was held for it goes out, the oldest first.</p>
        </Confirm>
      )}
      {asked === "restart" && (
        <Confirm title={`Restart ${hook.name}?`} verb="Restart" act={change("restart")} onClose={close}>
          <p>It is active again, and its failures are forgotten. What was held for it goes out at once, the oldest first.</p>
        </Confirm>
      )}
      {asked === "check" && (
        <Confirm title={`Check ${hook.name}?`} verb="Check" act={() => post(`${base}:check`)} onClose={close}>
          <p>Its endpoint gets a GET request, and has to answer it with 200. Then the webhook is active.</p>
        </Confirm>
      )}
      {asked === "delete" && (
        <Confirm title={`Delete ${hook.name}?`} verb="Delete" isDangerous onClose={close} act={() => call("DELETE", base).then(() => go(places.webhooks(project)))}>
          <p>Deliveries that are still owed to it end as cancelled. What is on record stays there. This cannot be undone.</p>
        </Confirm>
      )}
      {asked === "test" && <TestDialog project={project} base={base} hook={hook} onClose={close} />}
      {asked === "rotate" && (
        <RotateDialog
          hook={hook}
          base={base}
          onClose={close}
          onRotated={({ secret, ...rotated }: CreatedWebhook) => {
            put(rotated as Webhook);
            close();
            if (secret) setSecret(secret);
          }}
        />
      )}
      {secret && (
        <SecretDialog title={`The new secret of ${hook.name}`} secret={secret} onClose={() => setSecret(undefined)}>
          It is shown this once. Give it to the receiver.
        </SecretDialog>
      )}
    </>
  );
}

function whilePaused(hook: Webhook): string {
  switch (hook.pause) {
    case "hold":
      return "What happens meanwhile is kept for it.";
    case "drop":
      return "What happens meanwhile is skipped.";
    default:
      return "What becomes of what happens meanwhile is as the project's profile says.";
  }
}

import type { JSX } from "preact";
import { useMemo, useRef, useState } from "preact/hooks";

import { call, path, post } from "../api";
import type { InProject } from "../app";
import { Button } from "../components/button";
import { Page, Waiting } from "../components/page";
import { ProblemBox } from "../components/problem";
import { SecretDialog } from "../components/secret";
import { changes, type Draft, draftOf, empty, isReadable, newWebhook } from "../form/draft";
import { type FieldsProps, FilterAndBody, Headers, Labels, Signing, WhereAndWhat } from "../form/fields";
import { Preview } from "../form/preview";
import { Receiver } from "../form/receiver";
import { Requests } from "../form/requests";
import { TemplateFields } from "../form/template";
import { useAction, useLoaded } from "../loaded";
import type { CreatedWebhook, EventType, Profile, Project, Template, Webhook } from "../openapi";
import { places } from "../places";
import { go, Link } from "../router";

export function NewWebhookPage({ project }: InProject): JSX.Element {
  const [draft, setDraft] = useState<Draft>(empty);
  const [made, setMade] = useState<CreatedWebhook>();
  const { isBusy, failure, run } = useAction();
  const base = path`/v1/projects/${project}/webhooks`;
  const templates = useLoaded<{ items: Template[] }>("/v1/templates").value?.items ?? [];
  const fields = useFields(project, draft, setDraft, failure, true);
  const done = (hook: CreatedWebhook) => go(places.webhook(project, hook.id));
  const create = async () => {
    const hook = await post<CreatedWebhook>(base, newWebhook(draft));
    if (hook.secret) setMade(hook);
    else done(hook);
  };
  return (
    <Page title="New webhook" over={<Link to={places.webhooks(project)}>Webhooks</Link>}>
      <div class="beside">
        <Form isBusy={isBusy} verb="Create" onSubmit={() => run(create)} isReadable={isReadable(draft)} back={places.webhooks(project)}>
          <ProblemBox failure={failure} />
          <TemplateFields templates={templates} draft={draft} set={fields.set} failure={failure} />
          <AllFields {...fields} />
        </Form>
        <Preview at={`${base}:preview`} subject={isReadable(draft) && draft.name ? { webhook: newWebhook(draft) } : null} eventTypes={fields.eventTypes} />
      </div>
      {made?.secret && (
        <SecretDialog title={`The secret of ${made.name}`} secret={made.secret} onClose={() => done(made)}>
          Requests are signed with it. It is shown this once: give it to the receiver.
        </SecretDialog>
      )}
    </Page>
  );
}

export function EditWebhookPage({ project, variables }: InProject): JSX.Element {
  const base = path`/v1/projects/${project}/webhooks/${variables.webhook ?? ""}`;
  const { value, etag, failure, reload } = useLoaded<Webhook>(base);
  if (value) return <Edit key={value.revision} project={project} base={base} hook={value} etag={etag} />;
  return (
    <Page title="Edit webhook">
      <Waiting failure={failure} retry={reload} />
    </Page>
  );
}

function Edit({ project, base, hook, etag }: { project: string; base: string; hook: Webhook; etag: string | null }): JSX.Element {
  const before = useMemo(() => draftOf(hook), [hook]);
  const [draft, setDraft] = useState<Draft>(before);
  const { isBusy, failure, run } = useAction();
  const fields = useFields(project, draft, setDraft, failure, false);
  const back = places.webhook(project, hook.id);
  const save = async () => {
    const { body } = await call<Webhook>("PATCH", base, { body: changes(draft, before), etag });
    go(places.webhook(project, body.id));
  };
  return (
    <Page title={`Edit ${hook.name}`} over={<Link to={back}>{hook.name}</Link>}>
      <div class="beside">
        <Form isBusy={isBusy} verb="Save" onSubmit={() => run(save)} isReadable={isReadable(draft)} back={back}>
          <ProblemBox failure={failure} />
          {failure?.status === 412 && <p class="note">Somebody else has changed this webhook meanwhile. Load the page again to see how it is now.</p>}
          <AllFields {...fields} />
        </Form>
        <Preview at={`${base}:preview`} subject={isReadable(draft) ? { changes: changes(draft, before) } : null} eventTypes={fields.eventTypes} />
      </div>
    </Page>
  );
}

function useFields(project: string, draft: Draft, setDraft: (set: (draft: Draft) => Draft) => void, failure: FieldsProps["failure"], isNew: boolean): FieldsProps {
  const ofProject = useLoaded<Project>(path`/v1/projects/${project}`).value;
  const profile = useLoaded<Profile>(ofProject ? path`/v1/profiles/${ofProject.profile}` : null).value;
  const types = useLoaded<{ items: EventType[] }>(path`/v1/projects/${project}/event-types?limit=250`).value;
  const eventTypes = useMemo(() => types?.items.map((type) => type.name) ?? [], [types]);
  return { draft, set: (changes) => setDraft((draft) => ({ ...draft, ...changes })), failure, profile, eventTypes, isNew };
}

function AllFields(fields: FieldsProps): JSX.Element {
  return (
    <>
      <WhereAndWhat {...fields} />
      <FilterAndBody {...fields} />
      <Headers {...fields} />
      <Signing {...fields} />
      <Receiver {...fields} />
      <Requests {...fields} />
      <Labels {...fields} />
    </>
  );
}

type FormProps = { isBusy: boolean; isReadable: boolean; verb: string; back: string; onSubmit: () => Promise<boolean>; children: JSX.Element[] | JSX.Element | unknown };

/** Where it is refused, the first field that is not right gets the focus. */
function Form({ isBusy, isReadable, verb, back, onSubmit, children }: FormProps): JSX.Element {
  const form = useRef<HTMLFormElement>(null);
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    if (isBusy || !isReadable || (await onSubmit())) return;
    // The fields know of it when they have been drawn.
    requestAnimationFrame(() => form.current?.querySelector<HTMLElement>("[aria-invalid]")?.focus());
  };
  return (
    <form ref={form} class="form" onSubmit={submit} noValidate>
      {children as JSX.Element}
      <div class="actions">
        <Button kind="first" type="submit" isBusy={isBusy} disabled={!isReadable}>
          {verb}
        </Button>
        <Link to={back} class="button plain">
          Cancel
        </Link>
      </div>
    </form>
  );
}

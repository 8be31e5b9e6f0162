import type { JSX } from "preact";
import { useState } from "preact/hooks";

import { post } from "../api";
import { Button } from "../components/button";
import { Dialog } from "../components/dialog";
import { SelectField, TextField } from "../components/field";
import { Page } from "../components/page";
import { ProblemBox } from "../components/problem";
import { type Column, List } from "../components/table";
import { Time } from "../components/time";
import { useAction, useLoaded, usePages } from "../loaded";
import type { Profile, Project } from "../openapi";
import { places } from "../places";
import { go, Link } from "../router";
import { useMay } from "../session";

const columns: Column<Project>[] = [
  { name: "Name", show: (project) => <Link to={places.overview(project.name)}>{project.name}</Link>, class: "first" },
  { name: "Profile", show: (project) => project.profile },
  { name: "Created", show: (project) => <Time at={project.created_at} /> },
];

export function ProjectsPage(): JSX.Element {
  const pages = usePages<Project>("/v1/projects");
  const [isCreating, setIsCreating] = useState(false);
  const mayCreate = useMay("admin");
  const create = mayCreate && (
    <Button kind="first" onClick={() => setIsCreating(true)}>
      New project
    </Button>
  );
  return (
    <Page title="Projects" actions={create}>
      <List caption="Projects" columns={columns} pages={pages} keyOf={(project) => project.id} empty={<p>There is no project yet. Webhooks, events and tokens belong to one.</p>} />
      {isCreating && <NewProject onClose={() => setIsCreating(false)} />}
    </Page>
  );
}

function NewProject({ onClose }: { onClose: () => void }): JSX.Element {
  const profiles = useLoaded<{ items: Profile[] }>("/v1/profiles").value?.items ?? [];
  const [name, setName] = useState("");
  const [profile, setProfile] = useState("standard");
  const { isBusy, failure, run } = useAction();
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    if (!isBusy && (await run(() => post("/v1/projects", { name, profile })))) go(places.webhooks(name));
  };
  const options = profiles.length ? profiles.map((it) => [it.name, it.name] as const) : ([["standard", "standard"]] as const);
  return (
    <Dialog title="New project" onClose={onClose}>
      <form onSubmit={submit}>
        <TextField label="Name" value={name} onValue={setName} error={failure?.at("#/name")} hint="Letters a to z, digits and hyphens." required autoFocus />
        <SelectField
          label="Profile"
          value={profile}
          onValue={setProfile}
          options={options}
          error={failure?.at("#/profile")}
          hint={profiles.find((it) => it.name === profile)?.description}
        />
        <ProblemBox failure={failure} />
        <div class="actions end">
          <Button onClick={onClose}>Cancel</Button>
          <Button kind="first" type="submit" isBusy={isBusy} disabled={!name}>
            Create
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

// The session decides whether there is a page at all, the path which one. Who has to log in again comes back to where he was.

import type { ComponentType, JSX } from "preact";

import { ProblemBox } from "./components/problem";
import { AttemptPage } from "./pages/attempt";
import { AttemptsPage } from "./pages/attempts";
import { DeadLettersPage } from "./pages/dead-letters";
import { EventPage } from "./pages/event";
import { EventTypesPage } from "./pages/event-types";
import { EventsPage } from "./pages/events";
import { LoginPage } from "./pages/login";
import { NotFound } from "./pages/not-found";
import { OverviewPage } from "./pages/overview";
import { ProjectsPage } from "./pages/projects";
import { ReplayPage } from "./pages/replay";
import { TokensPage } from "./pages/tokens";
import { WebhookPage } from "./pages/webhook";
import { EditWebhookPage, NewWebhookPage } from "./pages/webhook-form";
import { WebhooksPage } from "./pages/webhooks";
import { match, usePlace } from "./router";
import { Current, useLogin } from "./session";
import { Shell } from "./shell";

export type Variables = Record<string, string>;
export type InProject = { project: string; variables: Variables };

const pages: readonly (readonly [string, ComponentType<InProject>])[] = [
  ["/p/:project", OverviewPage],
  ["/p/:project/webhooks", WebhooksPage],
  ["/p/:project/webhooks/new", NewWebhookPage],
  ["/p/:project/webhooks/:webhook", WebhookPage],
  ["/p/:project/webhooks/:webhook/edit", EditWebhookPage],
  ["/p/:project/events", EventsPage],
  ["/p/:project/events/:event", EventPage],
  ["/p/:project/attempts", AttemptsPage],
  ["/p/:project/attempts/:attempt", AttemptPage],
  ["/p/:project/dead-letters", DeadLettersPage],
  ["/p/:project/replays/:replay", ReplayPage],
  ["/p/:project/event-types", EventTypesPage],
  ["/p/:project/tokens", TokensPage],
];

export function App(): JSX.Element | null {
  const login = useLogin();
  const { session, failure } = login;
  if (failure) return <ProblemBox failure={failure} retry={() => location.reload()} />;
  if (session === undefined) return null;
  if (session === null) return <LoginPage login={login} />;
  return (
    <Current.Provider value={session}>
      <Routes login={login} own={session.project?.name} />
    </Current.Provider>
  );
}

function Routes({ login, own }: { login: ReturnType<typeof useLogin>; own: string | undefined }): JSX.Element {
  const { path } = usePlace();
  for (const [pattern, Page] of pages) {
    const variables = match(pattern, path);
    if (variables) {
      const project = variables.project ?? "";
      return (
        <Shell login={login} project={project}>
          <Page key={path} project={project} variables={variables} />
        </Shell>
      );
    }
  }
  const isStart = path === "/" || path === "/projects";
  if (isStart && own !== undefined) {
    return (
      <Shell login={login} project={own}>
        <OverviewPage project={own} variables={{}} />
      </Shell>
    );
  }
  return <Shell login={login}>{isStart ? <ProjectsPage /> : <NotFound />}</Shell>;
}

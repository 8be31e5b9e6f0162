// The paths of the pages.

import { path } from "./api";

export const places = {
  projects: "/projects",
  overview: (project: string) => path`/p/${project}`,
  webhooks: (project: string) => path`/p/${project}/webhooks`,
  newWebhook: (project: string) => path`/p/${project}/webhooks/new`,
  webhook: (project: string, webhook: string) => path`/p/${project}/webhooks/${webhook}`,
  editWebhook: (project: string, webhook: string) => path`/p/${project}/webhooks/${webhook}/edit`,
  events: (project: string) => path`/p/${project}/events`,
  event: (project: string, event: string) => path`/p/${project}/events/${event}`,
  attempts: (project: string) => path`/p/${project}/attempts`,
  attempt: (project: string, attempt: string) => path`/p/${project}/attempts/${attempt}`,
  deadLetters: (project: string) => path`/p/${project}/dead-letters`,
  replay: (project: string, replay: string) => path`/p/${project}/replays/${replay}`,
  eventTypes: (project: string) => path`/p/${project}/event-types`,
  tokens: (project: string) => path`/p/${project}/tokens`,
};

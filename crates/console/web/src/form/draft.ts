// A webhook as the form holds it: texts, as they are typed. What is left out of it, a change leaves as it is.

import type { ChangedWebhook, HeaderBody, NewWebhook, Webhook } from "../openapi";
import { parsed } from "./json";

export type LabelRow = { key: string; value: string };
/** `isStored`: its value is not given out; empty, it stays as it is. */
export type HeaderRow = { key: string; value: string; isProtected: boolean; isStored: boolean };

export type Draft = {
  name: string;
  url: string;
  /** Patterns, separated by white space or commas. */
  events: string;
  description: string;
  labels: LabelRow[];
  headers: HeaderRow[];
  retry: "profile" | "ladder" | "single";
  delays: string;
  timeout: string;
  pause: "" | "drop" | "hold";
  signing: "profile" | "own";
  hasStandardWebhooks: boolean;
  hmacHeader: string;
  secret: "made" | "given" | "none";
  secretText: string;
  template: string;
  blanks: Record<string, string>;
  filter: string;
  transform: string;
};

export const empty: Draft = {
  name: "",
  url: "",
  events: "*",
  description: "",
  labels: [],
  headers: [],
  retry: "profile",
  delays: "0s, 5s, 5m, 30m",
  timeout: "",
  pause: "",
  signing: "profile",
  hasStandardWebhooks: true,
  hmacHeader: "",
  secret: "made",
  secretText: "",
  template: "",
  blanks: {},
  filter: "",
  transform: "",
};

export function draftOf(hook: Webhook): Draft {
  return {
    ...empty,
    name: hook.name,
    url: hook.url,
    events: hook.events.join("\n"),
    description: hook.description,
    labels: Object.entries(hook.labels).map(([key, value]) => ({ key, value })),
    headers: hook.headers.map(({ key, value, protected: isProtected }) => ({ key, value: value ?? "", isProtected, isStored: value === null })),
    retry: hook.retry === null ? "profile" : hook.retry === false ? "single" : "ladder",
    delays: hook.retry ? hook.retry.delays.join(", ") : empty.delays,
    timeout: hook.timeout ?? "",
    pause: hook.pause ?? "",
    signing: hook.signature ? "own" : "profile",
    hasStandardWebhooks: hook.signature?.standard_webhooks ?? true,
    hmacHeader: hook.signature?.body_hmac_header ?? "",
    filter: hook.filter ? JSON.stringify(hook.filter, null, 2) : "",
    transform: hook.transform ? JSON.stringify(hook.transform, null, 2) : "",
  };
}

function words(text: string): string[] {
  return text.split(/[\s,]+/).filter(Boolean);
}

/** What both a new webhook and a change say. */
function common(draft: Draft) {
  return {
    name: draft.name,
    url: draft.url.trim(),
    events: words(draft.events),
    description: draft.description,
    labels: Object.fromEntries(draft.labels.filter((row) => row.key).map((row) => [row.key, row.value])),
    headers: draft.headers.filter((row) => row.key).map(header),
    retry: draft.retry === "profile" ? null : draft.retry === "single" ? (false as const) : { delays: words(draft.delays) },
    timeout: draft.timeout.trim() || null,
    pause: draft.pause || null,
    signature: draft.signing === "profile" ? null : { standard_webhooks: draft.hasStandardWebhooks, body_hmac_header: draft.hmacHeader.trim() || null },
    filter: (parsed(draft.filter).value ?? null) as ChangedWebhook["filter"],
    transform: (parsed(draft.transform).value ?? null) as ChangedWebhook["transform"],
  };
}

function header(row: HeaderRow): HeaderBody {
  return { key: row.key.trim(), value: row.isStored && !row.value ? null : row.value, protected: row.isProtected };
}

export function newWebhook(draft: Draft): NewWebhook {
  // What is said of nothing is left to the profile, and to the template where there is one.
  const said = Object.entries(common(draft)).filter(([, value]) => value !== null && value !== "" && !isEmpty(value));
  const secret = draft.secret === "none" ? { secret: null } : draft.secret === "given" ? { secret: draft.secretText } : {};
  const blanks = Object.fromEntries(Object.entries(draft.blanks).filter(([, value]) => value));
  const from = draft.template ? { template: draft.template, blanks } : {};
  return { ...Object.fromEntries(said), ...secret, ...from } as NewWebhook;
}

function isEmpty(value: unknown): boolean {
  return typeof value === "object" && value !== null && Object.keys(value).length === 0;
}

/** What is different from before. */
export function changes(draft: Draft, before: Draft): ChangedWebhook {
  const was = common(before) as Record<string, unknown>;
  const entries = Object.entries(common(draft)).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(was[name]));
  return Object.fromEntries(entries) as ChangedWebhook;
}

/** Whether every JSON text in it is JSON. */
export function isReadable(draft: Draft): boolean {
  return !parsed(draft.filter).error && !parsed(draft.transform).error;
}

// A webhook as the form holds it: texts, as they are typed. What is left out of it, a change leaves as it is.

import type { Authentication, ChangedWebhook, HeaderBody, NewWebhook, RateLimitBody, Webhook } from "../openapi";
import { parsed } from "./json";

export type PairRow = { key: string; value: string };
/** `isStored`: its value is not given out; empty, it stays as it is. */
export type ValueRow = { key: string; value: string; isProtected: boolean; isStored: boolean };
/** So many requests in so much time. */
export type Rate = { requests: string; per: string };

export type Draft = {
  name: string;
  url: string;
  /** Patterns, separated by white space or commas. */
  events: string;
  description: string;
  labels: PairRow[];
  attributes: PairRow[];
  headers: ValueRow[];
  variables: ValueRow[];
  options: Record<string, boolean>;
  retry: "profile" | "ladder" | "single";
  delays: string;
  timeout: string;
  success: "" | "2xx" | "2xx,3xx";
  failAfter: string;
  rate: Rate;
  maxInFlight: string;
  ordering: "" | "webhook" | "key";
  orderingKey: string;
  pause: "" | "drop" | "hold";
  drainRate: Rate;
  authentication: "" | Authentication["type"];
  username: string;
  password: string;
  tokenUrl: string;
  clientId: string;
  clientSecret: string;
  scope: string;
  ca: string;
  clientCertificate: string;
  clientKey: string;
  signing: "profile" | "own";
  hasStandardWebhooks: boolean;
  hmacHeader: string;
  secret: "made" | "given" | "none";
  secretText: string;
  template: string;
  blanks: Record<string, string>;
  filter: string;
  body: "" | NonNullable<Webhook["body"]>;
  transform: string;
};

const noRate: Rate = { requests: "", per: "1s" };

export const empty: Draft = {
  name: "",
  url: "",
  events: "*",
  description: "",
  labels: [],
  attributes: [],
  headers: [],
  variables: [],
  options: {},
  retry: "profile",
  delays: "0s, 5s, 5m, 30m",
  timeout: "",
  success: "",
  failAfter: "",
  rate: noRate,
  maxInFlight: "",
  ordering: "",
  orderingKey: "",
  pause: "",
  drainRate: noRate,
  authentication: "",
  username: "",
  password: "",
  tokenUrl: "",
  clientId: "",
  clientSecret: "",
  scope: "",
  ca: "",
  clientCertificate: "",
  clientKey: "",
  signing: "profile",
  hasStandardWebhooks: true,
  hmacHeader: "",
  secret: "made",
  secretText: "",
  template: "",
  blanks: {},
  filter: "",
  body: "",
  transform: "",
};

export function draftOf(hook: Webhook): Draft {
  return {
    ...empty,
    name: hook.name,
    url: hook.url,
    events: hook.events.join("\n"),
    description: hook.description,
    labels: pairRows(hook.labels),
    attributes: pairRows(hook.attributes),
    headers: hook.headers.map(valueRow),
    variables: hook.variables.map(valueRow),
    options: hook.options,
    retry: hook.retry === null ? "profile" : hook.retry === false ? "single" : "ladder",
    delays: hook.retry ? hook.retry.delays.join(", ") : empty.delays,
    timeout: hook.timeout ?? "",
    success: hook.success === null ? "" : hook.success.includes("3xx") ? "2xx,3xx" : "2xx",
    failAfter: hook.fail_after?.toString() ?? "",
    rate: rateOf(hook.rate_limit),
    maxInFlight: hook.max_in_flight?.toString() ?? "",
    ordering: hook.ordering?.by ?? "",
    orderingKey: hook.ordering?.by === "key" ? hook.ordering.key : "",
    pause: hook.pause ?? "",
    drainRate: rateOf(hook.drain_rate),
    ...authenticationOf(hook.authentication),
    ca: hook.tls?.ca ?? "",
    clientCertificate: hook.tls?.client_certificate ?? "",
    signing: hook.signature ? "own" : "profile",
    hasStandardWebhooks: hook.signature?.standard_webhooks ?? true,
    hmacHeader: hook.signature?.body_hmac_header ?? "",
    filter: hook.filter ? JSON.stringify(hook.filter, null, 2) : "",
    body: hook.body ?? "",
    transform: hook.transform ? JSON.stringify(hook.transform, null, 2) : "",
  };
}

function pairRows(pairs: Record<string, string>): PairRow[] {
  return Object.entries(pairs).map(([key, value]) => ({ key, value }));
}

function valueRow({ key, value, protected: isProtected }: Webhook["headers"][number]): ValueRow {
  return { key, value: value ?? "", isProtected, isStored: value === null };
}

function rateOf(rate: RateLimitBody | null): Rate {
  return rate ? { requests: rate.requests.toString(), per: rate.per } : noRate;
}

function authenticationOf(authentication: Webhook["authentication"]): Partial<Draft> {
  switch (authentication?.type) {
    case "basic":
      return { authentication: "basic", username: authentication.username };
    case "oauth2_client_credentials": {
      const { token_url, client_id, scope } = authentication;
      return { authentication: "oauth2_client_credentials", tokenUrl: token_url, clientId: client_id, scope: scope ?? "" };
    }
    default:
      return {};
  }
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
    labels: pairs(draft.labels),
    attributes: pairs(draft.attributes),
    headers: draft.headers.filter((row) => row.key).map(value),
    variables: draft.variables.filter((row) => row.key).map(value),
    options: draft.options,
    retry: draft.retry === "profile" ? null : draft.retry === "single" ? (false as const) : { delays: words(draft.delays) },
    timeout: draft.timeout.trim() || null,
    success: draft.success ? words(draft.success) : null,
    fail_after: number(draft.failAfter),
    rate_limit: rate(draft.rate),
    max_in_flight: number(draft.maxInFlight),
    ordering: draft.ordering === "key" ? { by: "key", key: draft.orderingKey.trim() } : draft.ordering ? { by: draft.ordering } : null,
    pause: draft.pause || null,
    drain_rate: rate(draft.drainRate),
    authentication: authentication(draft),
    tls: tls(draft),
    signature: draft.signing === "profile" ? null : { standard_webhooks: draft.hasStandardWebhooks, body_hmac_header: draft.hmacHeader.trim() || null },
    filter: (parsed(draft.filter).value ?? null) as ChangedWebhook["filter"],
    body: draft.transform.trim() ? null : draft.body || null,
    transform: (parsed(draft.transform).value ?? null) as ChangedWebhook["transform"],
  };
}

function pairs(rows: PairRow[]): Record<string, string> {
  return Object.fromEntries(rows.filter((row) => row.key).map((row) => [row.key, row.value]));
}

function number(text: string): number | null {
  return text.trim() ? Number(text) : null;
}

function rate({ requests, per }: Rate): RateLimitBody | null {
  return requests.trim() ? { requests: Number(requests), per: per.trim() } : null;
}

/** What is secret and not typed is not said: the stored one stays. */
function authentication(draft: Draft) {
  const { authentication: type, username, password, clientSecret, scope } = draft;
  switch (type) {
    case "basic":
      return { type, username, ...(password && { password }) };
    case "oauth2_client_credentials": {
      const who = { token_url: draft.tokenUrl.trim(), client_id: draft.clientId, scope: scope.trim() || null };
      return { type, ...who, ...(clientSecret && { client_secret: clientSecret }) };
    }
    default:
      return null;
  }
}

function tls({ ca, clientCertificate, clientKey }: Draft) {
  if (!ca.trim() && !clientCertificate.trim() && !clientKey.trim()) return null;
  return { ca: ca.trim() ? ca : null, client_certificate: clientCertificate.trim() ? clientCertificate : null, ...(clientKey.trim() && { client_key: clientKey }) };
}

function value(row: ValueRow): HeaderBody {
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

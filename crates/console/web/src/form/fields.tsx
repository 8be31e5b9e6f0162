// What the form asks for, in the order in which one thinks of it.

import type { JSX } from "preact";

import type { Failure } from "../api";
import { CheckField, SelectField, TextField } from "../components/field";
import type { Profile } from "../openapi";
import type { Draft } from "./draft";
import { parsed } from "./json";
import { HeaderRows, LabelRows } from "./rows";

export type FieldsProps = {
  draft: Draft;
  set: (changes: Partial<Draft>) => void;
  failure: Failure | undefined;
  profile: Profile | undefined;
  eventTypes: readonly string[];
  isNew: boolean;
};

export function WhereAndWhat({ draft, set, failure, isNew, eventTypes }: FieldsProps): JSX.Element {
  const isFromTemplate = draft.template !== "";
  return (
    <fieldset>
      <legend>Where and what</legend>
      <TextField label="Name" value={draft.name} onValue={(name) => set({ name })} error={failure?.at("#/name")} hint="Unique in the project." required autoFocus={isNew} />
      <TextField
        label="URL"
        value={draft.url}
        onValue={(url) => set({ url })}
        error={failure?.at("#/url")}
        hint={isFromTemplate ? "Empty: the template's." : "Public, and HTTPS, unless the operator allows otherwise."}
        placeholder="https://…"
        required={!isFromTemplate}
        isCode
      />
      <TextField
        label="Events"
        value={draft.events}
        onValue={(events) => set({ events })}
        error={failure?.at("#/events")}
        hint={
          <>
            One pattern a line: <code>*</code>, <code>invoice.paid</code>, <code>invoice.*</code>.
            {eventTypes.length > 0 && ` The project knows ${eventTypes.slice(0, 6).join(", ")}${eventTypes.length > 6 ? ", …" : "."}`}
          </>
        }
        rows={3}
        required={!isFromTemplate}
        isCode
      />
      <TextField label="Description" value={draft.description} onValue={(description) => set({ description })} error={failure?.at("#/description")} />
    </fieldset>
  );
}

export function Requests({ draft, set, failure, profile }: FieldsProps): JSX.Element {
  const ladder = profile ? profile.delays.join(", ") : "…";
  return (
    <fieldset>
      <legend>Requests</legend>
      <SelectField
        label="Retry"
        value={draft.retry}
        onValue={(retry) => set({ retry: retry as Draft["retry"] })}
        options={[
          ["profile", `As the profile says: ${ladder}`],
          ["ladder", "On a ladder of its own"],
          ["single", "A single attempt"],
        ]}
      />
      {draft.retry === "ladder" && (
        <TextField
          label="Delays"
          value={draft.delays}
          onValue={(delays) => set({ delays })}
          error={failure?.at("#/retry")}
          hint="Before each attempt, the first one's as well: 0s, 1m, 5m."
          isCode
        />
      )}
      <TextField
        label="Timeout"
        value={draft.timeout}
        onValue={(timeout) => set({ timeout })}
        error={failure?.at("#/timeout")}
        placeholder={profile?.timeout ?? ""}
        hint={profile && `Of one request; at most ${profile.timeout_max}. Empty: ${profile.timeout}.`}
        isCode
      />
      <SelectField
        label="While it is paused"
        value={draft.pause}
        onValue={(pause) => set({ pause: pause as Draft["pause"] })}
        error={failure?.at("#/pause")}
        options={[
          ["", `As the profile says${profile ? `: ${profile.pause}` : ""}`],
          ["drop", "drop: what happens is skipped"],
          ["hold", "hold: what happens is kept, and delivered on resume"],
        ]}
      />
    </fieldset>
  );
}

export function Signing({ draft, set, failure, profile, isNew }: FieldsProps): JSX.Element {
  const said = [profile?.standard_webhooks && "Standard Webhooks", profile?.body_hmac_header].filter(Boolean).join(", ");
  return (
    <fieldset>
      <legend>Signature</legend>
      <SelectField
        label="Requests are signed"
        value={draft.signing}
        onValue={(signing) => set({ signing: signing as Draft["signing"] })}
        options={[
          ["profile", `As the profile says${profile ? `: ${said || "not at all"}` : ""}`],
          ["own", "As said here"],
        ]}
      />
      {draft.signing === "own" && (
        <>
          <CheckField label="Standard Webhooks" checked={draft.hasStandardWebhooks} onChecked={(hasStandardWebhooks) => set({ hasStandardWebhooks })} />
          <TextField
            label="Header with the HMAC of the body"
            value={draft.hmacHeader}
            onValue={(hmacHeader) => set({ hmacHeader })}
            error={failure?.at("#/signature")}
            placeholder="none"
            isCode
          />
        </>
      )}
      {isNew && (
        <SelectField
          label="Secret"
          value={draft.secret}
          onValue={(secret) => set({ secret: secret as Draft["secret"] })}
          options={[
            ["made", "Make one up, where the profile wants one; it is shown once"],
            ["given", "This one"],
            ["none", "None: requests go out unsigned"],
          ]}
        />
      )}
      {isNew && draft.secret === "given" && (
        <TextField
          label="The secret"
          type="password"
          value={draft.secretText}
          onValue={(secretText) => set({ secretText })}
          error={failure?.at("#/secret")}
          hint="whsec_ and Base64, or any other text."
          required
        />
      )}
    </fieldset>
  );
}

export function More({ draft, set, failure }: FieldsProps): JSX.Element {
  return (
    <>
      <HeaderRows rows={draft.headers} onRows={(headers) => set({ headers })} failure={failure} />
      <LabelRows rows={draft.labels} onRows={(labels) => set({ labels })} failure={failure} />
      <fieldset>
        <legend>Filter and transform</legend>
        <TextField
          label="Filter"
          value={draft.filter}
          onValue={(filter) => set({ filter })}
          error={parsed(draft.filter).error ?? failure?.at("#/filter")}
          hint={
            <>
              A condition on the event, as JSON: <code>{'{"data": {"cost": {"$gt": 100}}}'}</code>
            </>
          }
          rows={4}
          isCode
        />
        <TextField
          label="Transform"
          value={draft.transform}
          onValue={(transform) => set({ transform })}
          error={parsed(draft.transform).error ?? failure?.at("#/transform")}
          hint={
            <>
              The body, as JSON whose strings hold expressions: <code>{'{"text": "{{data.title}}"}'}</code>
            </>
          }
          rows={6}
          isCode
        />
      </fieldset>
    </>
  );
}

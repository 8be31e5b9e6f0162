// What the form asks for, in the order in which one thinks of it.

import type { JSX } from "preact";

import type { Failure } from "../api";
import { CheckField, SelectField, TextField } from "../components/field";
import type { Profile } from "../openapi";
import type { Draft } from "./draft";
import { parsed } from "./json";
import { PairRows, ValueRows } from "./rows";

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

const bodies = [
  ["", "As the profile says"],
  ["raw", "raw: the event's data as it came"],
  ["flat", "flat: the event's data, with its type"],
  ["base64", "base64: the event's data as Base64 text"],
  ["cloudevents", "cloudevents: a CloudEvents document"],
] as const;

/** Which of the events, and what becomes of one. */
export function FilterAndBody({ draft, set, failure, profile }: FieldsProps): JSX.Element {
  return (
    <>
      <PairRows
        field="attributes"
        legend="Attributes"
        one="attribute"
        hint="An event is sent only if it has each of these with this value."
        rows={draft.attributes}
        onRows={(attributes) => set({ attributes })}
        failure={failure}
      />
      <fieldset>
        <legend>Filter and body</legend>
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
        <SelectField
          label="Body"
          value={draft.body}
          onValue={(body) => set({ body: body as Draft["body"] })}
          error={failure?.at("#/body")}
          disabled={draft.transform.trim() !== ""}
          hint="Where no transform makes it."
          options={bodies}
        />
        {profile?.options.map(({ name, description, default: isDefault }) => (
          <CheckField
            key={name}
            label={name}
            checked={draft.options[name] ?? isDefault}
            onChecked={(isOn) => set({ options: { ...draft.options, [name]: isOn } })}
            hint={description}
          />
        ))}
      </fieldset>
      <ValueRows
        field="variables"
        legend="Variables"
        one="variable"
        hint="What the transform finds under variables."
        rows={draft.variables}
        onRows={(variables) => set({ variables })}
        failure={failure}
      />
    </>
  );
}

export function Headers({ draft, set, failure }: FieldsProps): JSX.Element {
  return (
    <ValueRows
      field="headers"
      legend="Headers"
      one="header"
      hint="Sent with every request."
      rows={draft.headers}
      onRows={(headers) => set({ headers })}
      failure={failure}
    />
  );
}

export function Labels({ draft, set, failure }: FieldsProps): JSX.Element {
  return (
    <PairRows
      field="labels"
      legend="Labels"
      one="label"
      hint="For finding it: the list can be narrowed by them."
      rows={draft.labels}
      onRows={(labels) => set({ labels })}
      failure={failure}
    />
  );
}

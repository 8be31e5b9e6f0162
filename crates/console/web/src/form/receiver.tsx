// How a receiver knows who asks it, and how it is known.

import type { JSX } from "preact";

import { SelectField, TextField } from "../components/field";
import type { Draft } from "./draft";
import type { FieldsProps } from "./fields";

export function Receiver({ draft, set, failure, isNew }: FieldsProps): JSX.Element {
  const stored = isNew ? {} : { placeholder: "unchanged" };
  return (
    <fieldset>
      <legend>Authentication and TLS</legend>
      <SelectField
        label="Authentication"
        value={draft.authentication}
        onValue={(authentication) => set({ authentication: authentication as Draft["authentication"] })}
        error={draft.authentication ? undefined : failure?.at("#/authentication")}
        options={[
          ["", "none beside the signature"],
          ["basic", "HTTP Basic"],
          ["oauth2_client_credentials", "OAuth 2.0 client credentials"],
        ]}
      />
      {draft.authentication === "basic" && (
        <>
          <TextField label="User" value={draft.username} onValue={(username) => set({ username })} error={failure?.at("#/authentication/username")} required isCode />
          <TextField
            label="Password"
            type="password"
            value={draft.password}
            onValue={(password) => set({ password })}
            error={failure?.at("#/authentication/password")}
            {...stored}
            required={isNew}
          />
        </>
      )}
      {draft.authentication === "oauth2_client_credentials" && (
        <>
          <TextField
            label="Token URL"
            value={draft.tokenUrl}
            onValue={(tokenUrl) => set({ tokenUrl })}
            error={failure?.at("#/authentication/token_url")}
            placeholder="https://…"
            required
            isCode
          />
          <TextField label="Client" value={draft.clientId} onValue={(clientId) => set({ clientId })} error={failure?.at("#/authentication/client_id")} required isCode />
          <TextField
            label="Client secret"
            type="password"
            value={draft.clientSecret}
            onValue={(clientSecret) => set({ clientSecret })}
            error={failure?.at("#/authentication/client_secret")}
            {...stored}
            required={isNew}
          />
          <TextField label="Scope" value={draft.scope} onValue={(scope) => set({ scope })} error={failure?.at("#/authentication/scope")} isCode />
        </>
      )}
      <TextField
        label="Authorities"
        value={draft.ca}
        onValue={(ca) => set({ ca })}
        error={failure?.at("#/tls/ca")}
        hint="Certificates in PEM that the receiver's may come from, besides those that vouch for everybody."
        rows={2}
        isCode
      />
      <TextField
        label="Client certificate"
        value={draft.clientCertificate}
        onValue={(clientCertificate) => set({ clientCertificate })}
        error={failure?.at("#/tls/client_certificate")}
        hint="Shown to a receiver who asks for one: in PEM, with those between it and its authority."
        rows={2}
        isCode
      />
      {draft.clientCertificate.trim() && (
        <TextField
          label="Its key"
          value={draft.clientKey}
          onValue={(clientKey) => set({ clientKey })}
          error={failure?.at("#/tls/client_key")}
          hint={isNew ? "In PEM. It never comes back out." : "In PEM. Empty: the stored one stays."}
          rows={2}
          isCode
        />
      )}
    </fieldset>
  );
}

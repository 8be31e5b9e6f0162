// How requests are made: when, how many, and what counts.

import type { JSX } from "preact";

import type { Failure } from "../api";
import { SelectField, TextField } from "../components/field";
import type { Draft, Rate } from "./draft";
import type { FieldsProps } from "./fields";

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
        label="Counts as delivered"
        value={draft.success}
        onValue={(success) => set({ success: success as Draft["success"] })}
        error={failure?.at("#/success")}
        options={[
          ["", `As the profile says${profile ? `: ${profile.redirect_is_success ? "2xx, 3xx" : "2xx"}` : ""}`],
          ["2xx", "2xx"],
          ["2xx,3xx", "2xx and 3xx"],
        ]}
      />
      <TextField
        label="Fails after"
        type="number"
        value={draft.failAfter}
        onValue={(failAfter) => set({ failAfter })}
        error={failure?.at("#/fail_after")}
        placeholder={profile?.fail_after?.toString() ?? "never"}
        hint="So many failed attempts in a row, retries included; 0: never. Empty: as the profile says."
      />
      <RateFields label="Rate limit" field="rate_limit" rate={draft.rate} onRate={(rate) => set({ rate })} failure={failure} hint="So many requests begin in so much time. Empty: no limit." />
      <TextField
        label="In flight"
        type="number"
        value={draft.maxInFlight}
        onValue={(maxInFlight) => set({ maxInFlight })}
        error={failure?.at("#/max_in_flight")}
        hint="Requests under way at once, 1 to 100. Empty: as the operator says."
      />
      <SelectField
        label="Order"
        value={draft.ordering}
        onValue={(ordering) => set({ ordering: ordering as Draft["ordering"] })}
        error={failure?.at("#/ordering")}
        options={[
          ["", "none: several at once, and a retry comes after what happened since"],
          ["webhook", "each waits until the one before it is settled"],
          ["key", "the same, among those of one key"],
        ]}
      />
      {draft.ordering === "key" && (
        <TextField
          label="Key"
          value={draft.orderingKey}
          onValue={(orderingKey) => set({ orderingKey })}
          hint="An expression over the event."
          placeholder="data.customer_id"
          required
          isCode
        />
      )}
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
      <RateFields
        label="Drain rate"
        field="drain_rate"
        rate={draft.drainRate}
        onRate={(drainRate) => set({ drainRate })}
        failure={failure}
        hint="What was held goes out so fast once it is active again. Empty: as fast as its lane takes it."
      />
    </fieldset>
  );
}

type RateFieldsProps = { label: string; field: string; rate: Rate; onRate: (rate: Rate) => void; failure: Failure | undefined; hint: string };

/** So many in so much time. */
function RateFields({ label, field, rate, onRate, failure, hint }: RateFieldsProps): JSX.Element {
  return (
    <div class="row">
      <TextField
        label={label}
        type="number"
        value={rate.requests}
        onValue={(requests) => onRate({ ...rate, requests })}
        error={failure?.at(`#/${field}`)}
        placeholder="none"
        hint={hint}
      />
      <TextField label={`${label}: in`} value={rate.per} onValue={(per) => onRate({ ...rate, per })} disabled={!rate.requests} isCode />
    </div>
  );
}

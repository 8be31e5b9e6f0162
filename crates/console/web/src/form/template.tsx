import type { JSX } from "preact";

import type { Failure } from "../api";
import { SelectField, TextField } from "../components/field";
import type { Template } from "../openapi";
import { type Draft, empty } from "./draft";

type TemplateFieldsProps = { templates: readonly Template[]; draft: Draft; set: (changes: Partial<Draft>) => void; failure: Failure | undefined };

/** Where the webhook is to be made from a template: which, and what it asks for. */
export function TemplateFields({ templates, draft, set, failure }: TemplateFieldsProps): JSX.Element | null {
  if (!templates.length) return null;
  const chosen = templates.find((template) => template.name === draft.template);
  const choose = (name: string) => {
    const template = templates.find((it) => it.name === name);
    // The template says what it is meant for, where nothing else has been said.
    const isUntouched = draft.events === empty.events || draft.events === "";
    set({ template: name, blanks: {}, ...(isUntouched && { events: template ? "" : empty.events }) });
  };
  return (
    <fieldset>
      <legend>Template</legend>
      <SelectField
        label="Made from"
        value={draft.template}
        onValue={choose}
        options={[["", "nothing: events go out as they are"], ...templates.map((it) => [it.name, it.name] as const)]}
        hint={chosen?.description}
        error={failure?.at("#/template")}
      />
      {chosen?.blanks.map((blank) => (
        <TextField
          key={blank.name}
          label={blank.name}
          value={draft.blanks[blank.name] ?? ""}
          onValue={(value) => set({ blanks: { ...draft.blanks, [blank.name]: value } })}
          type={blank.secret ? "password" : "text"}
          hint={blank.description}
          placeholder={blank.default ?? blank.example}
          required={blank.required}
          error={failure?.at(`#/blanks/${blank.name}`)}
          isCode
        />
      ))}
    </fieldset>
  );
}

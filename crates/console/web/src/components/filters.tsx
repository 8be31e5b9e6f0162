import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

import { Button } from "./button";
import { SelectField, TextField } from "./field";

type Filter<N extends string> = { name: N; label: string; options?: readonly string[]; placeholder?: string; type?: "text" | "datetime-local" };
type FilterBarProps<N extends string> = {
  fields: readonly Filter<N>[];
  values: Record<N, string>;
  onChange: (values: Partial<Record<N, string>>) => void;
};

/** Typing asks again only when it has paused for this long. */
const PAUSE_MS = 300;

export function FilterBar<N extends string>({ fields, values, onChange }: FilterBarProps<N>): JSX.Element {
  const isAny = fields.some(({ name }) => values[name]);
  const clear = () => onChange(Object.fromEntries(fields.map(({ name }) => [name, ""])) as Record<N, string>);
  return (
    <form class="filters" role="search" onSubmit={(event) => event.preventDefault()}>
      {fields.map(({ name, label, options, placeholder, type }) => {
        const set = (value: string) => onChange({ [name]: value } as Partial<Record<N, string>>);
        return options ? (
          <SelectField key={name} label={label} value={values[name]} onValue={set} options={[["", "any"], ...options.map((it) => [it, it] as const)]} />
        ) : (
          <Typed key={name} label={label} value={values[name]} onValue={set} {...(placeholder && { placeholder })} {...(type && { type })} />
        );
      })}
      {isAny && (
        <Button kind="quiet" onClick={clear}>
          Clear
        </Button>
      )}
    </form>
  );
}

type TypedProps = { label: string; value: string; onValue: (value: string) => void; placeholder?: string; type?: "text" | "datetime-local" };

function Typed({ value, onValue, ...field }: TypedProps): JSX.Element {
  const [typed, setTyped] = useState(value);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  useEffect(() => setTyped(value), [value]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const type = (text: string) => {
    setTyped(text);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => onValue(text.trim()), PAUSE_MS);
  };
  return <TextField {...field} value={typed} onValue={type} />;
}

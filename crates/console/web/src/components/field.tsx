import type { ComponentChildren, JSX } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";

type Common = {
  label: string;
  hint?: ComponentChildren;
  error?: string | undefined;
  value: string;
  onValue: (value: string) => void;
  isCode?: boolean;
  disabled?: boolean;
};

type TextProps = Common & {
  type?: "text" | "password" | "search" | "number" | "datetime-local";
  rows?: number;
  placeholder?: string;
  required?: boolean;
  autoFocus?: boolean;
  autocomplete?: "off" | "current-password";
  options?: readonly string[] | undefined;
};

/** A label, a field, what it is for, and what is wrong with it. */
export function TextField(props: TextProps): JSX.Element {
  const id = useId();
  const input = useRef<HTMLInputElement>(null);
  // What the attribute of that name says is heeded once in a page's life.
  useEffect(() => void (props.autoFocus && input.current?.focus()), []);
  const { label, hint, error, value, onValue, rows, options, isCode } = props;
  const common = {
    id,
    value,
    placeholder: props.placeholder,
    required: props.required,
    disabled: props.disabled,
    "aria-invalid": error ? true : undefined,
    "aria-describedby": described(id, hint, error),
    class: isCode ? "code" : undefined,
    spellcheck: false,
  };
  // The types of an input's attributes go by its type, which is known to whoever asks for a field.
  const kind = { type: props.type ?? "text", list: options ? `${id}-options` : undefined } as { type: "text" };
  const type = (event: { currentTarget: { value: string } }) => onValue(event.currentTarget.value);
  return (
    <div class="field">
      <label for={id}>
        {label} {props.required && <span class="faint">required</span>}
      </label>
      {rows ? (
        <textarea {...common} rows={rows} onInput={type} />
      ) : (
        <input
          {...common}
          {...kind}
          ref={input}
          autoFocus={props.autoFocus}
          autocomplete={props.autocomplete ?? "off"}
          onInput={type}
        />
      )}
      {options && (
        <datalist id={`${id}-options`}>
          {options.map((option) => (
            <option key={option} value={option} />
          ))}
        </datalist>
      )}
      <Notes id={id} hint={hint} error={error} />
    </div>
  );
}

type SelectProps = Common & { options: readonly (readonly [value: string, label: string])[] };

export function SelectField({ label, hint, error, value, onValue, options, disabled }: SelectProps): JSX.Element {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <select
        id={id}
        value={value}
        disabled={disabled}
        aria-invalid={error ? true : undefined}
        aria-describedby={described(id, hint, error)}
        onChange={(event) => onValue(event.currentTarget.value)}
      >
        {options.map(([value, label]) => (
          <option key={value} value={value}>
            {label}
          </option>
        ))}
      </select>
      <Notes id={id} hint={hint} error={error} />
    </div>
  );
}

type CheckProps = { label: string; hint?: ComponentChildren; checked: boolean; onChecked: (checked: boolean) => void; disabled?: boolean };

export function CheckField({ label, hint, checked, onChecked, disabled }: CheckProps): JSX.Element {
  const id = useId();
  return (
    <div class="field check">
      <input id={id} type="checkbox" checked={checked} disabled={disabled} onChange={(event) => onChecked(event.currentTarget.checked)} />
      <label for={id}>{label}</label>
      <Notes id={id} hint={hint} error={undefined} />
    </div>
  );
}

function described(id: string, hint: ComponentChildren, error: string | undefined): string | undefined {
  return [error && `${id}-error`, hint && `${id}-hint`].filter(Boolean).join(" ") || undefined;
}

function Notes({ id, hint, error }: { id: string; hint: ComponentChildren; error: string | undefined }): JSX.Element {
  return (
    <>
      {error && (
        <p id={`${id}-error`} class="field-error">
          {error}
        </p>
      )}
      {hint && (
        <p id={`${id}-hint`} class="hint">
          {hint}
        </p>
      )}
    </>
  );
}

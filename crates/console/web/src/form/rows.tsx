// Headers and labels: as many rows as one likes.

import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";

import type { Failure } from "../api";
import { Button } from "../components/button";
import { CheckField, TextField } from "../components/field";
import type { HeaderRow, LabelRow } from "./draft";

type RowsProps<R> = { rows: R[]; onRows: (rows: R[]) => void; failure: Failure | undefined };

/** Rows of which each can be changed and taken away; a new one gets the focus. */
function useRows<R>({ rows, onRows }: RowsProps<R>, blank: R) {
  const group = useRef<HTMLFieldSetElement>(null);
  const count = useRef(rows.length);
  useEffect(() => {
    const fields = group.current?.querySelectorAll<HTMLInputElement>(".row input:first-of-type");
    if (rows.length > count.current) group.current?.querySelector<HTMLInputElement>(".row:last-of-type input")?.focus();
    else if (rows.length < count.current && !fields?.length) group.current?.querySelector("button")?.focus();
    count.current = rows.length;
  }, [rows.length]);
  return {
    group,
    add: () => onRows([...rows, blank]),
    change: (n: number, change: Partial<R>) => onRows(rows.map((row, at) => (at === n ? { ...row, ...change } : row))),
    remove: (n: number) => onRows(rows.filter((_, at) => at !== n)),
  };
}

export function HeaderRows(props: RowsProps<HeaderRow>): JSX.Element {
  const { group, add, change, remove } = useRows(props, { key: "", value: "", isProtected: false, isStored: false });
  return (
    <fieldset ref={group}>
      <legend>Headers</legend>
      {props.rows.map((row, n) => (
        <div class="row" key={n}>
          <TextField label="Name" value={row.key} onValue={(key) => change(n, { key })} error={props.failure?.at(`#/headers/${n}/key`)} isCode />
          <TextField
            label="Value"
            value={row.value}
            onValue={(value) => change(n, { value })}
            error={props.failure?.at(`#/headers/${n}/value`)}
            type={row.isProtected ? "password" : "text"}
            {...(row.isStored && { placeholder: "unchanged" })}
            isCode
          />
          <CheckField label="Protected" checked={row.isProtected} onChecked={(isProtected) => change(n, { isProtected })} />
          <Button kind="quiet" onClick={() => remove(n)} label={`Remove header ${row.key || n + 1}`}>
            Remove
          </Button>
        </div>
      ))}
      <Button onClick={add}>Add a header</Button>
      <p class="hint">Sent with every request. A protected value never comes back out.</p>
    </fieldset>
  );
}

export function LabelRows(props: RowsProps<LabelRow>): JSX.Element {
  const { group, add, change, remove } = useRows(props, { key: "", value: "" });
  const error = props.failure?.at("#/labels");
  return (
    <fieldset ref={group}>
      <legend>Labels</legend>
      {props.rows.map((row, n) => (
        <div class="row" key={n}>
          <TextField label="Key" value={row.key} onValue={(key) => change(n, { key })} />
          <TextField label="Value" value={row.value} onValue={(value) => change(n, { value })} />
          <Button kind="quiet" onClick={() => remove(n)} label={`Remove label ${row.key || n + 1}`}>
            Remove
          </Button>
        </div>
      ))}
      <Button onClick={add}>Add a label</Button>
      {error && <p class="field-error">{error}</p>}
      <p class="hint">For finding it: the list can be narrowed by them.</p>
    </fieldset>
  );
}

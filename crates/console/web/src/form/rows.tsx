// Values under names, and pairs of key and value: as many rows as one likes.

import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";

import type { Failure } from "../api";
import { Button } from "../components/button";
import { CheckField, TextField } from "../components/field";
import type { PairRow, ValueRow } from "./draft";

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

type ValueRowsProps = RowsProps<ValueRow> & { field: "headers" | "variables"; legend: string; one: string; hint: string };

/** Headers or variables: some of their values are protected. */
export function ValueRows(props: ValueRowsProps): JSX.Element {
  const { group, add, change, remove } = useRows(props, { key: "", value: "", isProtected: false, isStored: false });
  const { field, legend, one, hint, failure } = props;
  return (
    <fieldset ref={group}>
      <legend>{legend}</legend>
      {props.rows.map((row, n) => (
        <div class="row" key={n}>
          <TextField label="Name" value={row.key} onValue={(key) => change(n, { key })} error={failure?.at(`#/${field}/${n}/key`)} isCode />
          <TextField
            label="Value"
            value={row.value}
            onValue={(value) => change(n, { value })}
            error={failure?.at(`#/${field}/${n}/value`)}
            type={row.isProtected ? "password" : "text"}
            {...(row.isStored && { placeholder: "unchanged" })}
            isCode
          />
          <CheckField label="Protected" checked={row.isProtected} onChecked={(isProtected) => change(n, { isProtected })} />
          <Button kind="quiet" onClick={() => remove(n)} label={`Remove ${one} ${row.key || n + 1}`}>
            Remove
          </Button>
        </div>
      ))}
      <Button onClick={add}>Add a {one}</Button>
      <p class="hint">{hint} A protected value never comes back out.</p>
    </fieldset>
  );
}

type PairRowsProps = RowsProps<PairRow> & { field: "labels" | "attributes"; legend: string; one: string; hint: string };

/** Labels or attributes. */
export function PairRows(props: PairRowsProps): JSX.Element {
  const { group, add, change, remove } = useRows(props, { key: "", value: "" });
  const { legend, one, hint } = props;
  const error = props.failure?.at(`#/${props.field}`);
  return (
    <fieldset ref={group}>
      <legend>{legend}</legend>
      {props.rows.map((row, n) => (
        <div class="row" key={n}>
          <TextField label="Key" value={row.key} onValue={(key) => change(n, { key })} />
          <TextField label="Value" value={row.value} onValue={(value) => change(n, { value })} />
          <Button kind="quiet" onClick={() => remove(n)} label={`Remove ${one} ${row.key || n + 1}`}>
            Remove
          </Button>
        </div>
      ))}
      <Button onClick={add}>{/^[aeiou]/.test(one) ? "Add an" : "Add a"} {one}</Button>
      {error && <p class="field-error">{error}</p>}
      <p class="hint">{hint}</p>
    </fieldset>
  );
}

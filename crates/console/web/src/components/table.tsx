import type { ComponentChildren, JSX } from "preact";

import type { Pages } from "../loaded";
import { Button } from "./button";
import { Waiting } from "./page";
import { ProblemBox } from "./problem";

export type Column<T> = { name: string; show: (item: T) => ComponentChildren; class?: string };

type TableProps<T> = { caption: string; columns: readonly Column<T>[]; items: readonly T[]; keyOf: (item: T) => string };

/** A table; on a narrow screen each row becomes a card whose lines say which column they are. */
export function Table<T>({ caption, columns, items, keyOf }: TableProps<T>): JSX.Element {
  return (
    <div class="table-frame">
      <table class="table">
        <caption class="unseen">{caption}</caption>
        <thead>
          <tr>
            {columns.map((column) => (
              <th key={column.name} scope="col" class={column.class}>
                {column.name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {items.map((item) => (
            <tr key={keyOf(item)}>
              {columns.map((column) => (
                <td key={column.name} data-column={column.name} class={column.class}>
                  {column.show(item)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

type ListProps<T> = Omit<TableProps<T>, "items"> & { pages: Pages<T>; empty: ComponentChildren };

/** A list of the API: its table, and a button for what is not there yet. */
export function List<T>({ pages, empty, ...table }: ListProps<T>): JSX.Element {
  const { items, failure, next, isLoading, more, reload } = pages;
  if (!items) return <Waiting failure={failure} retry={reload} />;
  return (
    <>
      {items.length || next ? <Table {...table} items={items} /> : <div class="empty">{empty}</div>}
      <ProblemBox failure={failure} />
      {next && (
        <div class="actions centred">
          <Button onClick={more} isBusy={isLoading}>
            Show more
          </Button>
        </div>
      )}
    </>
  );
}

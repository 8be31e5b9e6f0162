import type { JSX } from "preact";
import { useMemo, useState } from "preact/hooks";

import { layOut } from "../json-text";
import { Button } from "./button";
import { CopyButton } from "./copy";

/** A text that somebody else has written: text, whatever stands in it. */
export function TextBlock({ text, label, none = "empty" }: { text: string | null | undefined; label: string; none?: string }): JSX.Element {
  const [isLaidOut, setIsLaidOut] = useState(true);
  const laid = useMemo(() => (text ? layOut(text) : ""), [text]);
  if (!text) return <p class="faint">{none}</p>;
  return (
    <div class="text-block">
      <pre tabIndex={0} role="region" aria-label={label}>
        {isLaidOut ? laid : text}
      </pre>
      <div class="actions">
        <CopyButton text={text} />
        {laid !== text && (
          <Button kind="quiet" isPressed={!isLaidOut} onClick={() => setIsLaidOut(!isLaidOut)}>
            As it was sent
          </Button>
        )}
      </div>
    </div>
  );
}

type Line = { key: string; value: string | null };

/** Headers, or anything else with names and values. A value that is not given out is null. */
export function Lines({ lines, label }: { lines: readonly Line[]; label: string }): JSX.Element {
  if (!lines.length) return <p class="faint">none</p>;
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={label}>
      <table class="lines">
        <tbody>
          {lines.map(({ key, value }, n) => (
            <tr key={n}>
              <th scope="row">{key}</th>
              <td>{value === null ? <span class="faint">protected</span> : value}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

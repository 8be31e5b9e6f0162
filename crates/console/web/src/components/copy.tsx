import type { JSX } from "preact";
import { useState } from "preact/hooks";

import { Button } from "./button";

/** Copies a text. Where the browser does not let it, the text can still be marked. */
export function CopyButton({ text, label = "Copy" }: { text: string; label?: string }): JSX.Element {
  const [said, setSaid] = useState("");
  const copy = () => {
    const copied = navigator.clipboard ? navigator.clipboard.writeText(text) : Promise.reject(new Error("no clipboard"));
    copied.then(
      () => setSaid("Copied"),
      () => setSaid("Mark and copy it"),
    );
  };
  return (
    <>
      <Button onClick={copy}>{label}</Button>
      <span class="faint" role="status">
        {said}
      </span>
    </>
  );
}

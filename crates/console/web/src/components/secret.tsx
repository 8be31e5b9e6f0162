import type { JSX } from "preact";

import { Button } from "./button";
import { CopyButton } from "./copy";
import { Dialog } from "./dialog";

/** A secret that is shown this once. */
export function SecretDialog({ title, secret, children, onClose }: { title: string; secret: string; children: string; onClose: () => void }): JSX.Element {
  return (
    <Dialog title={title} onClose={onClose} isSticky>
      <p>{children}</p>
      <p class="secret">
        <code>{secret}</code>
      </p>
      <div class="actions end">
        <CopyButton text={secret} />
        <Button kind="first" onClick={onClose}>
          I have kept it
        </Button>
      </div>
    </Dialog>
  );
}

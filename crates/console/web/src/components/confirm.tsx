import type { ComponentChildren, JSX } from "preact";

import { useAction } from "../loaded";
import { Button } from "./button";
import { Dialog } from "./dialog";
import { ProblemBox } from "./problem";

type ConfirmProps = {
  title: string;
  children: ComponentChildren;
  /** What the button says: the thing that is done. */
  verb: string;
  isDangerous?: boolean;
  act: () => Promise<unknown>;
  onClose: () => void;
};

/** Asks before something is done, does it, and stays open to say why if it cannot be. */
export function Confirm({ title, children, verb, isDangerous, act, onClose }: ConfirmProps): JSX.Element {
  const { isBusy, failure, run } = useAction();
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    if (!isBusy && (await run(act))) onClose();
  };
  return (
    <Dialog title={title} onClose={onClose}>
      <form onSubmit={submit}>
        {children}
        <ProblemBox failure={failure} />
        <div class="actions end">
          <Button onClick={onClose}>Cancel</Button>
          <Button kind={isDangerous ? "danger" : "first"} type="submit" isBusy={isBusy}>
            {verb}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

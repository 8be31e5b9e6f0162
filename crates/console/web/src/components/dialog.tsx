import type { ComponentChildren, JSX } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";

type DialogProps = { title: string; children: ComponentChildren; onClose: () => void; isWide?: boolean; isSticky?: boolean };

/** A modal dialog: the browser keeps the focus within it, and gives it back. A sticky one is closed by its buttons alone. */
export function Dialog({ title, children, onClose, isWide, isSticky }: DialogProps): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  const heading = useId();
  useEffect(() => {
    const opener = document.activeElement;
    dialog.current?.showModal();
    return () => {
      dialog.current?.close();
      if (opener instanceof HTMLElement && opener.isConnected) opener.focus();
    };
  }, []);
  const cancel = (event: Event) => {
    event.preventDefault();
    if (!isSticky) onClose();
  };
  return (
    <dialog ref={dialog} class={isWide ? "dialog wide" : "dialog"} aria-labelledby={heading} onCancel={cancel}>
      <h2 id={heading}>{title}</h2>
      {children}
    </dialog>
  );
}

import type { ComponentChildren, JSX } from "preact";

type ButtonProps = {
  children: ComponentChildren;
  onClick?: (() => void) | undefined;
  kind?: "plain" | "first" | "danger" | "quiet";
  type?: "button" | "submit";
  isBusy?: boolean;
  disabled?: boolean;
  label?: string;
  isPressed?: boolean;
};

/** Busy, it stays where the focus is and does nothing. */
export function Button({ children, onClick, kind = "plain", type = "button", isBusy, disabled, label, isPressed }: ButtonProps): JSX.Element {
  const press = (event: MouseEvent) => {
    if (isBusy) return event.preventDefault();
    onClick?.();
  };
  return (
    <button type={type} class={`button ${kind}`} onClick={press} disabled={disabled} aria-busy={isBusy} aria-label={label} aria-pressed={isPressed}>
      {children}
    </button>
  );
}

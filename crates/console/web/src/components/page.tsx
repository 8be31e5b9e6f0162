import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";

import type { Failure } from "../api";
import { ProblemBox } from "./problem";

type PageProps = { title: string; over?: ComponentChildren; beside?: ComponentChildren; actions?: ComponentChildren; children: ComponentChildren };

/** A page with its heading, which gets the focus when one comes to it. */
export function Page({ title, over, beside, actions, children }: PageProps): JSX.Element {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    const within = document.activeElement;
    // A field that has asked for it keeps it.
    if (!(within instanceof HTMLInputElement)) heading.current?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }, []);
  useEffect(() => {
    document.title = `${title} · Posthaste`;
  }, [title]);
  return (
    <>
      {over && <p class="over">{over}</p>}
      <div class="heading">
        <h1 ref={heading} tabIndex={-1}>
          {title}
        </h1>
        {beside}
        {actions && <div class="actions">{actions}</div>}
      </div>
      {children}
    </>
  );
}

/** While something is not there yet: nothing at first, so that what comes at once does not flicker. */
export function Waiting({ failure, retry }: { failure?: Failure | undefined; retry?: () => void }): JSX.Element {
  if (failure) return <ProblemBox failure={failure} {...(retry && { retry })} />;
  return (
    <p class="waiting" role="status">
      Loading…
    </p>
  );
}

export function Section({ title, beside, children }: { title: string; beside?: ComponentChildren; children: ComponentChildren }): JSX.Element {
  return (
    <section>
      <div class="heading">
        <h2>{title}</h2>
        {beside}
      </div>
      {children}
    </section>
  );
}

/** Names and what they stand for. */
export function Facts({ children }: { children: ComponentChildren }): JSX.Element {
  return <dl class="facts">{children}</dl>;
}

export function Fact({ name, children }: { name: string; children: ComponentChildren }): JSX.Element {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

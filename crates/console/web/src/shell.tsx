// What is around every page: where one is, where else one can go, and the way out.

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";

import { Button } from "./components/button";
import { Mark } from "./components/mark";
import { places } from "./places";
import { Link, usePlace } from "./router";
import { type Login, useMay, useSession } from "./session";

type ShellProps = { login: Login; project?: string; children: ComponentChildren };

export function Shell({ login, project, children }: ShellProps): JSX.Element {
  const session = useSession();
  return (
    <>
      <a class="skip" href="#main" onClick={skip}>
        Skip to the content
      </a>
      <header class="top">
        <Link to="/" class="brand" label="Posthaste, to the start">
          <Mark />
          <span>Posthaste</span>
        </Link>
        {project && (
          <span class="where">
            <span class="project">{project}</span>
            {session.project === null && <Link to={places.projects}>All projects</Link>}
          </span>
        )}
        <span class="who">
          <span class="faint">{session.token_name}</span>
          <Button kind="quiet" onClick={() => void login.logout()}>
            Log out
          </Button>
        </span>
      </header>
      <div class="frame">
        {project && <Navigation project={project} />}
        <main id="main" tabIndex={-1}>
          {children}
        </main>
      </div>
    </>
  );
}

function skip(event: Event): void {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

function Navigation({ project }: { project: string }): JSX.Element {
  const { path } = usePlace();
  const isAdmin = useMay("admin");
  const overview = places.overview(project);
  const bar = useRef<HTMLElement>(null);
  // On a narrow screen the bar may be wider than it.
  useEffect(() => bar.current?.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" }), [path]);
  const entries: [string, string][] = [
    ["Overview", overview],
    ["Webhooks", places.webhooks(project)],
    ["Events", places.events(project)],
    ["Attempts", places.attempts(project)],
    ["Dead letters", places.deadLetters(project)],
    ["Event types", places.eventTypes(project)],
  ];
  if (isAdmin) entries.push(["Tokens", places.tokens(project)]);
  return (
    <nav ref={bar} class="side" aria-label="Project">
      <ul>
        {entries.map(([name, to]) => (
          <li key={name}>
            <Link to={to} current={to === overview ? path === to || path === "/" : path === to || path.startsWith(`${to}/`)}>
              {name}
            </Link>
          </li>
        ))}
      </ul>
    </nav>
  );
}

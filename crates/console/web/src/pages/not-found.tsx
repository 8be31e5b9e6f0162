import type { JSX } from "preact";

import { Page } from "../components/page";
import { Link } from "../router";

export function NotFound(): JSX.Element {
  return (
    <Page title="There is no such page">
      <p>
        <Link to="/">To the start</Link>
      </p>
    </Page>
  );
}

import type { JSX } from "preact";

import type { Failure } from "../api";

/** What went wrong, in the service's words. */
export function ProblemBox({ failure, retry }: { failure: Failure | undefined; retry?: () => void }): JSX.Element | null {
  if (!failure) return null;
  const { errors, instance } = failure.problem;
  return (
    <div class="problem" role="alert">
      <p>
        <strong>{failure.problem.title ?? "That did not work"}</strong>
        {!errors?.length && failure.message !== failure.problem.title && <span> {failure.message}</span>}
      </p>
      {errors && errors.length > 0 && (
        <ul>
          {errors.map((error) => (
            <li key={error.pointer}>
              <code>{error.pointer}</code> {error.detail}
            </li>
          ))}
        </ul>
      )}
      {failure.status >= 500 && instance && (
        <p class="faint">
          Request <code>{instance}</code>
        </p>
      )}
      {retry && (
        <button type="button" class="button plain" onClick={retry}>
          Try again
        </button>
      )}
    </div>
  );
}

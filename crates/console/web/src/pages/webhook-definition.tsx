import type { JSX } from "preact";

import { Fact, Facts } from "../components/page";
import { Lines, TextBlock } from "../components/text";
import { Time } from "../components/time";
import type { RateLimitBody, Webhook } from "../openapi";

export function Health({ hook }: { hook: Webhook }): JSX.Element {
  const { health } = hook;
  return (
    <div class="card">
      <Facts>
        <Fact name="URL">
          <code>{hook.url}</code>
        </Fact>
        <Fact name="Events">
          <Codes words={hook.events} />
        </Fact>
        <Fact name="Failed in a row">{health.failures_in_a_row}</Fact>
        <Fact name="Last delivered">
          <Time at={health.last_delivered_at} none="never" />
        </Fact>
        <Fact name="Last failed">
          <Time at={health.last_failed_at} none="never" />
        </Fact>
        {hook.state_since && (
          <Fact name={`${hook.state} since`}>
            <Time at={hook.state_since} />
          </Fact>
        )}
        {Object.keys(hook.labels).length > 0 && (
          <Fact name="Labels">
            <Codes words={pairs(hook.labels)} />
          </Fact>
        )}
      </Facts>
    </div>
  );
}

function Codes({ words }: { words: readonly string[] }): JSX.Element {
  return (
    <span class="words">
      {words.map((word) => (
        <code key={word}>{word}</code>
      ))}
    </span>
  );
}

function pairs(values: Record<string, unknown>): string[] {
  return Object.entries(values).map(([key, value]) => `${key}: ${String(value)}`);
}

const asProfile = <span class="faint">as the profile says</span>;

export function Definition({ hook }: { hook: Webhook }): JSX.Element {
  return (
    <div class="card">
      <Facts>
        <Fact name="Retry">{hook.retry === null ? asProfile : hook.retry === false ? "a single attempt" : hook.retry.delays.join(", ")}</Fact>
        <Fact name="Timeout">{hook.timeout ?? asProfile}</Fact>
        <Fact name="Signature">{hook.signature === null ? asProfile : signature(hook)}</Fact>
        <Fact name="Secrets">
          <Secrets hook={hook} />
        </Fact>
        <Fact name="Counts as delivered">{hook.success?.join(", ") ?? asProfile}</Fact>
        <Fact name="While paused">{hook.pause ?? asProfile}</Fact>
        <Fact name="Fails after">{hook.fail_after === null ? asProfile : hook.fail_after === 0 ? "never" : `${hook.fail_after} failed attempts`}</Fact>
        <Fact name="Rate limit">{limit(hook.rate_limit)}</Fact>
        <Fact name="In flight">{hook.max_in_flight ?? "as the operator says"}</Fact>
        {hook.ordering && <Fact name="Order">{hook.ordering.by === "key" ? `by ${hook.ordering.key}` : "all of them"}</Fact>}
        {hook.authentication && <Fact name="Authentication">{hook.authentication.type}</Fact>}
        {Object.keys(hook.attributes).length > 0 && (
          <Fact name="Attributes">
            <Codes words={pairs(hook.attributes)} />
          </Fact>
        )}
        {Object.keys(hook.options).length > 0 && (
          <Fact name="Options">
            <Codes words={pairs(hook.options)} />
          </Fact>
        )}
        <Fact name="Body">{hook.body ?? asProfile}</Fact>
        <Fact name="Created">
          <Time at={hook.created_at} />
        </Fact>
        <Fact name="Changed">
          <Time at={hook.updated_at} />
        </Fact>
        <Fact name="Id">
          <code>{hook.id}</code>
        </Fact>
      </Facts>
      {hook.headers.length > 0 && (
        <>
          <h3>Headers</h3>
          <Lines lines={hook.headers} label="Headers" />
        </>
      )}
      {hook.variables.length > 0 && (
        <>
          <h3>Variables</h3>
          <Lines lines={hook.variables} label="Variables" />
        </>
      )}
      {hook.filter && (
        <>
          <h3>Filter</h3>
          <TextBlock text={JSON.stringify(hook.filter)} label="Filter" />
        </>
      )}
      {hook.transform && (
        <>
          <h3>Transform</h3>
          <TextBlock text={JSON.stringify(hook.transform)} label="Transform" />
        </>
      )}
    </div>
  );
}

function signature({ signature }: Webhook): string {
  const parts = [signature?.standard_webhooks && "Standard Webhooks", signature?.body_hmac_header && `${signature.body_hmac_header}: HMAC of the body`];
  return parts.filter(Boolean).join("; ") || "none";
}

function limit(rate: RateLimitBody | null): string {
  return rate ? `${rate.requests} in ${rate.per}` : "none";
}

function Secrets({ hook }: { hook: Webhook }): JSX.Element {
  if (!hook.secrets.length) return <>none: requests go out unsigned</>;
  return (
    <ul class="plain">
      {hook.secrets.map((secret) => (
        <li key={secret.id}>
          {secret.kind}, made <Time at={secret.created_at} />
          {secret.expires_at && (
            <>
              , signs until <Time at={secret.expires_at} />
            </>
          )}
          {secret.public_key && (
            <>
              {" "}
              <code>{secret.public_key}</code>
            </>
          )}
        </li>
      ))}
    </ul>
  );
}

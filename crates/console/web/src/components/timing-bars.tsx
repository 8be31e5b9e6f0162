import type { JSX } from "preact";

import { milliseconds } from "../format";
import type { Timings } from "../openapi";

type Part = { name: string; from: number; to: number };

/** One after the other: what is left of the time to the first byte is the request and the receiver's thinking. */
function partsOf({ dns_ms, connect_ms, tls_ms, first_byte_ms, total_ms }: Timings): Part[] {
  const parts: Part[] = [];
  let at = 0;
  const add = (name: string, ms: number | null) => {
    if (ms === null) return;
    parts.push({ name, from: at, to: at + ms });
    at += ms;
  };
  add("DNS", dns_ms);
  add("Connect", connect_ms);
  add("TLS", tls_ms);
  if (first_byte_ms !== null) add("Waiting for the answer", Math.max(0, first_byte_ms - at));
  add(first_byte_ms === null ? "Until it ended" : "Reading the answer", Math.max(0, total_ms - at));
  return parts;
}

const HEIGHT = 10;

export function TimingBars({ timings }: { timings: Timings }): JSX.Element {
  const parts = partsOf(timings);
  const whole = Math.max(timings.total_ms, 0.001);
  return (
    <table class="timings">
      <tbody>
        {parts.map(({ name, from, to }) => (
          <tr key={name}>
            <th scope="row">{name}</th>
            <td class="number">{milliseconds(to - from)}</td>
            <td class="bar">
              <svg viewBox={`0 0 100 ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
                <rect class="track" width="100" height={HEIGHT} />
                <rect class="part" x={(100 * from) / whole} width={Math.max(0.5, (100 * (to - from)) / whole)} height={HEIGHT} />
              </svg>
            </td>
          </tr>
        ))}
        <tr class="total">
          <th scope="row">Total</th>
          <td class="number">{milliseconds(timings.total_ms)}</td>
          <td>{timings.connect_ms === null && <span class="faint">over a connection that was there, or none</span>}</td>
        </tr>
      </tbody>
    </table>
  );
}

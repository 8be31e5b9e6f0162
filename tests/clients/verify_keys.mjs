// Node's own Ed25519 on requests as a receiver got them, with the keys as they are published: JSON on stdin,
// {"keys": "<address of the key set>", "requests": [{"headers": {...}, "body": "..."}]}. Prints for each request the `kid`s
// that verify it, joined by commas; fails where none does, or a changed body verifies.
//
// usage: node verify_keys.mjs < REQUESTS
import { createPublicKey, verify } from 'node:crypto';
import { readFileSync } from 'node:fs';

const { keys: address, requests } = JSON.parse(readFileSync(0, 'utf8'));
const answer = await fetch(address);
if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
const { keys } = await answer.json();
if (requests.length === 0) throw new Error('nothing to verify');
for (const { headers, body } of requests) {
  const head = `${headers['webhook-id']}.${headers['webhook-timestamp']}.`;
  const signatures = headers['webhook-signature']
    .split(' ')
    .filter((one) => one.startsWith('v1a,'))
    .map((one) => Buffer.from(one.slice(4), 'base64'));
  const verified = keys.filter((jwk) => {
    const key = createPublicKey({ key: jwk, format: 'jwk' });
    const signed = (text) => signatures.some((signature) => verify(null, Buffer.from(head + text), key, signature));
    if (signed(`${body} `)) throw new Error('a changed body verified');
    return signed(body);
  });
  if (verified.length === 0) throw new Error(`no key verifies ${headers['webhook-signature']}`);
  console.log(verified.map((jwk) => jwk.kid).join(','));
}

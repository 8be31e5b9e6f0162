// The published library `standardwebhooks`, on requests as a receiver got them: JSON on stdin,
// {"secret": ..., "requests": [{"headers": {...}, "body": "..."}]}. Prints the ids; fails where one does not verify.
//
// usage: node verify.mjs MODULES < REQUESTS     MODULES is the folder that has node_modules
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const require = createRequire(join(resolve(process.argv[2]), 'package.json'));
const { Webhook, WebhookVerificationError } = require('standardwebhooks');

const { secret, requests } = JSON.parse(readFileSync(0, 'utf8'));
if (requests.length === 0) throw new Error('nothing to verify');
const verifier = new Webhook(secret);
for (const { headers, body } of requests) {
  verifier.verify(body, headers);
  let refused = false;
  try {
    verifier.verify(`${body} `, headers);
  } catch (error) {
    if (!(error instanceof WebhookVerificationError)) throw error;
    refused = true;
  }
  if (!refused) throw new Error('a changed body verified');
  console.log(headers['webhook-id']);
}

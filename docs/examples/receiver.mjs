#!/usr/bin/env node
// Receives webhooks and verifies them by Standard Webhooks, with nothing beyond Node.js 18.
// `node receiver.mjs --help` says how it is used.

import { createHmac, timingSafeEqual } from 'node:crypto';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';

const HELP = `usage: WEBHOOK_SECRET=whsec_... node receiver.mjs [--listen HOST:PORT] [--exit-after N]

Prints one line per request. Answers 204 to a request whose signature is right and 401 to any other.

  --listen HOST:PORT  where to listen; port 0 picks a free one (default 127.0.0.1:9000)
  --exit-after N      stop after N requests; exit 1 if one was refused`;

const BODY_MAX = 2 * 1024 * 1024;
const TOLERANCE_SECONDS = 300;
const REMEMBERED_IDS = 10_000;

const { listen, 'exit-after': exitAfter, help } = options();
if (help) {
  console.log(HELP);
  process.exit(0);
}
const secret = process.env.WEBHOOK_SECRET ?? '';
if (!secret.startsWith('whsec_')) {
  refuseToStart('set WEBHOOK_SECRET to the webhook\'s secret (whsec_...); creating the webhook answered with it');
}
const key = Buffer.from(secret.slice('whsec_'.length), 'base64');
const [, host, port] = /^(.+):(\d+)$/.exec(listen) ?? refuseToStart(`${listen} is not HOST:PORT`);
const seen = new Set();
let requests = 0;
let refused = 0;

// null, or what is wrong. The signature covers the bytes as they came: verify them before parsing anything.
function whyRefused(headers, body) {
  const { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': signatures } = headers;
  if (!id || !timestamp || !signatures) return 'a webhook-... header is missing';
  if (!/^\d+$/.test(timestamp)) return 'webhook-timestamp is not a number';
  const age = Date.now() / 1000 - Number(timestamp);
  if (Math.abs(age) > TOLERANCE_SECONDS) return 'webhook-timestamp is too old or too new';
  const expected = createHmac('sha256', key).update(`${id}.${timestamp}.`).update(body).digest();
  const right = signatures.split(' ').some((entry) => {
    const [version, signature = ''] = entry.split(',');
    const given = Buffer.from(signature, 'base64');
    return version === 'v1' && given.length === expected.length && timingSafeEqual(given, expected);
  });
  return right ? null : 'no signature matches';
}

function eventType(body) {
  try {
    return JSON.parse(body).type ?? '-';
  } catch {
    return '-';
  }
}

function isNew(id) {
  const first = !seen.has(id);
  seen.add(id);
  if (seen.size > REMEMBERED_IDS) seen.delete(seen.values().next().value);
  return first;
}

function finished(line, wasRefused) {
  console.log(line);
  requests += 1;
  refused += wasRefused ? 1 : 0;
  if (requests === exitAfter) stop();
}

function stop() {
  server.close(() => process.exit(refused ? 1 : 0));
  server.closeIdleConnections();
  setTimeout(() => server.closeAllConnections(), 500).unref();
}

function refuseToStart(reason) {
  console.error(`${reason}\n\n${HELP}`);
  process.exit(2);
}

function options() {
  try {
    const { values } = parseArgs({
      options: {
        listen: { type: 'string', default: '127.0.0.1:9000' },
        'exit-after': { type: 'string', default: '0' },
        help: { type: 'boolean', default: false },
      },
    });
    return { ...values, 'exit-after': Number(values['exit-after']) };
  } catch (error) {
    return refuseToStart(error.message);
  }
}

const server = createServer((request, response) => {
  if (request.method === 'GET') {
    response.writeHead(200).end();
    return;
  }
  const chunks = [];
  let size = 0;
  request.on('data', (chunk) => {
    size += chunk.length;
    if (size > BODY_MAX) {
      response.writeHead(413, { connection: 'close' }).end();
      request.removeAllListeners('data').resume();
      chunks.length = 0;
      return;
    }
    chunks.push(chunk);
  });
  request.on('end', () => {
    if (response.writableEnded) return;
    const body = Buffer.concat(chunks);
    const reason = whyRefused(request.headers, body);
    response.writeHead(reason ? 401 : 204).end();
    if (reason) {
      finished(`refused  ${reason}`, true);
      return;
    }
    const id = request.headers['webhook-id'];
    finished(`${isNew(id) ? 'received' : 'again   '} ${id} ${eventType(body)} ${body.length} bytes`, false);
  });
});
server.on('error', (error) => refuseToStart(error.message));
process.on('SIGTERM', stop);
process.on('SIGINT', stop);
server.listen(Number(port), host, () => {
  const { address, port: bound } = server.address();
  console.log(`listening on http://${address}:${bound}/`);
});

// Debian's Chromium, on the console. Whatever a page complains of is a failure: a violation of its policy, an error in the
// console, a request that is refused unless the story says that it will be.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';

/** Generous, for machines that are busy. */
const PATIENCE_MS = 60_000;

/**
 * Runs a story. It is given a page and what stands on stdin: {"api": ..., "screenshots": FOLDER, ...}; `refused` are the
 * answers that belong to it, as `401 /v1/session`.
 */
export async function inBrowser(refused, story) {
  const require = createRequire(join(resolve(process.argv[2]), 'package.json'));
  const { chromium } = require('playwright-core');
  const told = JSON.parse(readFileSync(0, 'utf8'));
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    // Its sandbox needs what a container or root does not give it; it sees no page but ours.
    args: ['--no-sandbox', '--disable-dev-shm-usage'],
  });
  try {
    const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, locale: 'en-GB' });
    context.setDefaultTimeout(PATIENCE_MS);
    const complaints = [];
    await context.exposeFunction('complain', (what) => complaints.push(what));
    await context.addInitScript(() => {
      addEventListener('securitypolicyviolation', (event) => {
        window.complain(`policy: ${event.violatedDirective} ${event.blockedURI} at ${location.href}`);
      });
    });
    const page = await context.newPage();
    page.on('pageerror', (error) => complaints.push(`script: ${error.stack ?? error}`));
    page.on('console', (message) => {
      // Refused requests are looked at below, where they have a status.
      const isRefusal = message.text().startsWith('Failed to load resource: the server responded with a status of');
      if (['error', 'warning'].includes(message.type()) && !isRefusal) complaints.push(`console: ${message.text()}`);
    });
    page.on('response', (response) => {
      const what = `${response.status()} ${new URL(response.url()).pathname}`;
      if (response.status() >= 400 && !refused.some((it) => what === it || (it instanceof RegExp && it.test(what)))) {
        complaints.push(`refused: ${what}`);
      }
    });
    page.on('request', (request) => {
      if (!request.url().startsWith(`${told.api}/`)) complaints.push(`asked of somebody else: ${request.url()}`);
    });
    page.on('dialog', (dialog) => complaints.push(`a dialog: ${dialog.message()}`));
    const shot = (name) => page.screenshot({ path: join(told.screenshots, `${name}.png`) });
    try {
      await story(page, told, shot);
    } catch (error) {
      await shot('failed').catch(() => {});
      throw new Error(`${error.stack}\nat ${page.url()}\ncomplaints: ${complaints.join('\n')}`);
    }
    assert.deepEqual(complaints, []);
  } finally {
    await browser.close();
  }
}

/** Logs in by the mouse's ways. */
export async function logIn(page, told, token) {
  await page.goto(`${told.api}/console/`);
  await page.getByLabel('Token').fill(token);
  await page.getByRole('button', { name: 'Log in' }).click();
}

/** Waits until a condition holds. */
export async function eventually(what, holds) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await holds();
    if (found) return found;
    assert.ok(Date.now() < deadline, `${what}: not in time`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

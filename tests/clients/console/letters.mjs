// Dead letters that are counted and made again, a token that is made and revoked, a form that shows what it comes to.
//
// usage: node letters.mjs MODULES < {"api", "token", "screenshots", "letters": HOW MANY}

import assert from 'node:assert/strict';

import { inBrowser, logIn } from './browser.mjs';

await inBrowser(['401 /v1/session', /^4\d\d .*:preview$/], async (page, told, shot) => {
  const open = (name) => page.getByRole('navigation').getByRole('link', { name, exact: true }).click();
  const button = (name) => page.getByRole('button', { name, exact: true });
  const dialog = page.getByRole('dialog');
  await logIn(page, told, told.token);
  await page.getByRole('link', { name: 'acme' }).click();

  // What became of it, at a glance.
  await page.getByRole('link', { name: `${told.letters} Dead` }).waitFor();
  await page.getByRole('img', { name: `0 attempts delivered, ${told.letters} attempts failed.` }).waitFor();
  await shot('overview');

  // Nothing is made again before it has been counted.
  await open('Dead letters');
  const group = page.getByRole('row', { name: /flaky/ });
  await group.getByText(String(told.letters), { exact: true }).waitFor();
  await group.getByRole('button', { name: 'Replay' }).click();
  await dialog.getByText(`${told.letters} deliveries`).waitFor();
  await shot('replay-counted');
  await dialog.getByRole('button', { name: 'Replay' }).click();
  await page.getByRole('heading', { level: 1, name: 'Replay 1' }).waitFor();
  await page.locator('.heading').first().getByText('finished', { exact: true }).waitFor();
  await page.locator('.facts > div', { hasText: 'Delivered' }).getByText(String(told.letters), { exact: true }).waitFor();
  await shot('replay-finished');
  await open('Dead letters');
  await page.getByText('There are none').waitFor();

  // A token is shown once, and good for nothing when it is revoked.
  await open('Tokens');
  await button('New token').click();
  await dialog.getByLabel('Name').fill('for an evening');
  await dialog.getByRole('button', { name: 'Create' }).click();
  const token = await page.getByRole('dialog', { name: 'The token for an evening' }).locator('code').textContent();
  const status = () => fetch(`${told.api}/v1/projects/acme/webhooks`, { headers: { authorization: `Bearer ${token}` } }).then((answer) => answer.status);
  assert.equal(await status(), 200);
  await button('I have kept it').click();
  assert.ok(!(await page.content()).includes(token), 'it is shown once');
  await button('Revoke for an evening').click();
  await dialog.getByRole('button', { name: 'Revoke' }).click();
  await button('Revoke for an evening').waitFor({ state: 'detached' });
  assert.equal(await status(), 401);

  // The form, beside the request that it comes to.
  await open('Webhooks');
  await page.getByRole('link', { name: 'New webhook' }).click();
  await page.getByLabel('Made from').selectOption('slack');
  await page.getByLabel('path').fill('T0/B0/XYZ');
  await page.getByLabel('Name').first().fill('slack');
  const preview = page.getByRole('complementary', { name: 'Preview' });
  await preview.getByText('POST https://hooks.slack.com/services/T0/B0/XYZ').waitFor();
  await page.getByLabel('Transform').fill('{"text": "{{data.titel}}"}');
  await preview.getByLabel('Payload').fill('{"title": "a title"}');
  await preview.getByText('data.titel').waitFor();
  await shot('form');
  await page.getByLabel('Transform').fill('{"text": "{{data.title}}"}');
  await preview.getByText('"text": "a title"').waitFor();
  await preview.getByText('data.titel').waitFor({ state: 'detached' });
});

// The console by keyboard alone, from the first page to the last: nothing here touches a mouse.
//
// usage: node story.mjs MODULES < {"api", "ingest", "token", "receiver", "screenshots"}

import assert from 'node:assert/strict';

import { eventually, inBrowser } from './browser.mjs';

const TABS_MAX = 120;

await inBrowser(['401 /v1/session', '422 /v1/projects/acme/webhooks', /^4\d\d .*:preview$/, /^401 /], async (page, told, shot) => {
  const keys = page.keyboard;
  const focused = () => page.evaluate(() => {
    const element = document.activeElement;
    const label = element.labels?.[0]?.textContent ?? element.getAttribute('aria-label') ?? element.textContent;
    return { label: label.trim(), tag: element.tagName.toLowerCase(), isShown: element.matches(':focus-visible') };
  });
  /** Goes on to what has this name, and sees that one sees where one is. */
  const tabTo = async (name, tag) => {
    for (let n = 0; n < TABS_MAX; n += 1) {
      await keys.press('Tab');
      const at = await focused();
      if (at.tag !== 'body' && at.label.startsWith(name) && (!tag || at.tag === tag)) {
        assert.ok(at.isShown, `${name}: the focus is not seen`);
        return;
      }
    }
    assert.fail(`${name} cannot be reached by keyboard`);
  };
  const press = async (name, tag) => {
    await tabTo(name, tag);
    await keys.press('Enter');
  };
  const heading = (name) => page.getByRole('heading', { level: 1, name, exact: true }).waitFor();
  const state = (name) => page.locator('.heading').first().getByText(name, { exact: true }).waitFor();

  // Logs in; the field has the focus already.
  await page.goto(`${told.api}/console/`);
  await page.getByLabel('Token').waitFor();
  await eventually('the focus on the token', async () => (await focused()).label === 'Token');
  await keys.type('ph_wrong');
  await keys.press('Enter');
  await page.getByText('This token is not valid.').waitFor();
  await shot('login');
  await keys.press('Control+A');
  await keys.type(told.token);
  await keys.press('Enter');

  // A project; a dialog keeps the focus, and Escape closes it.
  await heading('Projects');
  await press('Skip to the content');
  await eventually('the focus on the content', async () => (await focused()).tag === 'main');
  await press('New project');
  await page.getByRole('dialog').waitFor();
  for (let n = 0; n < 12; n += 1) {
    await keys.press('Tab');
    const isWithin = await page.evaluate(() => document.activeElement === document.body || document.activeElement.closest('dialog') !== null);
    assert.ok(isWithin, 'the focus has left the dialog');
  }
  await keys.press('Escape');
  await page.getByRole('dialog').waitFor({ state: 'detached' });
  await eventually('the focus is back', async () => (await focused()).label === 'New project');
  await keys.press('Enter');
  await eventually('the focus on the name', async () => (await focused()).label.startsWith('Name'));
  await keys.type('acme');
  await press('Create');

  // A webhook: what is wrong with it is said at the field, which gets the focus.
  await heading('Webhooks');
  await page.getByText('There is no webhook yet').waitFor();
  await press('New webhook', 'a');
  await heading('New webhook');
  await keys.type('books');
  await tabTo('URL');
  await keys.type('http://10.0.0.1/');
  await tabTo('Events');
  await keys.press('Control+A');
  await keys.type('invoice.*');
  await press('Add a header');
  await keys.type('X-Team');
  await tabTo('Value');
  await keys.type('blue');
  await press('Create');
  await page.locator('.field-error').first().waitFor();
  await eventually('the focus on the url', async () => (await focused()).label.startsWith('URL'));
  await shot('field-error');
  await keys.press('Control+A');
  await keys.type(told.receiver);
  await press('Create');
  const secret = page.getByRole('dialog', { name: 'The secret of books' });
  assert.match(await secret.locator('code').textContent(), /^whsec_/);
  await press('I have kept it');

  // It is there, and what becomes of an event is seen as it happens.
  await heading('books');
  await state('active');
  await page.locator('section', { hasText: 'Attempts' }).first().getByText('live', { exact: true }).waitFor();
  const rows = page.locator('table', { hasText: 'Attempts' }).getByText('delivered', { exact: true });
  assert.equal(await rows.count(), 0);
  let published = 0;
  let at = 0;
  await eventually('an attempt, live', async () => {
    // A definition is in force a second after the answer; what is published before is for nobody.
    if (Date.now() - at > 1000) {
      at = Date.now();
      published += 1;
      const response = await fetch(`${told.ingest}/v1/projects/acme/events`, {
        method: 'POST',
        headers: { authorization: `Bearer ${told.token}`, 'content-type': 'application/json' },
        body: `{"type": "invoice.paid", "id": "e${published}", "data": {"amount": 150.00, "number": 12345678901234567890}}`,
      });
      assert.equal(response.status, 202);
    }
    return (await rows.count()) > 0;
  });
  await shot('webhook');

  // The attempt, with the request as it was sent, and the event, number for number.
  await press(await page.locator('td.first time').first().textContent(), 'a');
  await heading('Attempt 1 to books');
  await page.getByRole('region', { name: 'Headers of the request' }).getByText('blue', { exact: true }).waitFor();
  const body = page.getByRole('region', { name: 'Body of the request' });
  assert.match(await body.textContent(), /"amount": 150\.00,\s+"number": 12345678901234567890/);
  await page.getByRole('region', { name: 'Headers of the response' }).waitFor();
  await shot('attempt');
  await press('e', 'a');
  await heading('invoice.paid');
  assert.match(await page.getByRole('region', { name: 'Payload' }).textContent(), /"amount": 150\.00,\s+"number": 12345678901234567890/);
  await page.getByRole('table', { name: 'Deliveries' }).getByText('delivered', { exact: true }).waitFor();

  // The list shows it with its state; from there it is paused.
  await press('Webhooks', 'a');
  await heading('Webhooks');
  await page.getByRole('row', { name: /books.*active/ }).waitFor();
  await press('books', 'a');
  await heading('books');
  await press('Pause', 'button');
  await page.getByRole('dialog', { name: 'Pause books?' }).waitFor();
  await press('Pause', 'button');
  await page.getByRole('dialog').waitFor({ state: 'detached' });
  await state('paused');
  await shot('paused');

  // A session that ends elsewhere leads to the login, and the login back to the place.
  const place = page.url();
  await page.evaluate(async () => {
    const { csrf } = await (await fetch('/v1/session')).json();
    await fetch('/v1/session', { method: 'DELETE', headers: { 'x-csrf-token': csrf, 'content-type': 'application/json' }, body: '{}' });
  });
  await page.getByText('The session has ended').waitFor();
  await page.getByLabel('Token').waitFor();
  await eventually('the focus on the token again', async () => (await focused()).label === 'Token');
  await keys.type(told.token);
  await keys.press('Enter');
  await heading('books');
  await eventually('the place is the same', async () => page.url() === place);

  await press('Log out', 'button');
  await page.getByLabel('Token').waitFor();
  assert.equal(await page.evaluate(async () => (await fetch('/v1/projects')).status), 401);
});

// A webhook of which everything is said in the form, and what becomes of it when it moves to another host.
//
// usage: node form.mjs MODULES < {"api", "token", "screenshots", "url", "elsewhere", "ca"}

import assert from 'node:assert/strict';

import { eventually, inBrowser, logIn } from './browser.mjs';

await inBrowser(['401 /v1/session', /^422 \/v1\/projects\/studio\/webhooks\/[^/:]+$/, /^4\d\d .*:preview$/], async (page, told, shot) => {
  const field = (name) => page.getByLabel(name, { exact: true });
  const group = (name) => page.getByRole('group', { name, exact: true });
  const fill = async (values) => {
    for (const [name, value] of Object.entries(values)) await field(name).fill(value);
  };
  const choose = async (values) => {
    for (const [name, value] of Object.entries(values)) await field(name).selectOption(value);
  };
  const addTo = async (name, values) => {
    await group(name).getByRole('button', { name: /^Add/ }).click();
    const row = group(name).locator('.row').last();
    for (const [label, value] of Object.entries(values)) await row.getByLabel(label, { exact: true }).fill(value);
    return row;
  };
  const definition = (id) => page.evaluate((id) => fetch(`/v1/projects/studio/webhooks/${id}`).then((answer) => answer.json()), id);
  const heading = (name) => page.getByRole('heading', { level: 1, name, exact: true }).waitFor();
  const idIn = (url) => new URL(url).pathname.split('/')[5];

  await logIn(page, told, told.token);
  await page.getByRole('link', { name: 'studio' }).click();
  await page.getByRole('navigation').getByRole('link', { name: 'Webhooks', exact: true }).click();
  await page.getByRole('link', { name: 'New webhook' }).click();
  await fill({ 'Name required': 'all', 'URL required': told.url, 'Events required': 'deployment_request_completed', Description: 'of everything something' });
  await addTo('Attributes', { Key: 'object_type', Value: 'deployment' });
  await fill({ Filter: '{"data": {"status": "completed"}}', Transform: '{"key": "{{variables.routing_key}}"}' });
  await field('include_result').check();
  const variable = await addTo('Variables', { Name: 'routing_key', Value: 'v-1' });
  await variable.getByLabel('Protected').check();
  const header = await addTo('Headers', { Name: 'X-Api-Key', Value: 'h-1' });
  await header.getByLabel('Protected').check();
  await choose({ Secret: 'none', Authentication: 'oauth2_client_credentials' });
  await fill({ 'Token URL required': `${told.url}/token`, 'Client required': 'c-1', 'Client secret required': 's-1', Scope: 'hooks:write' });
  await choose({ Authentication: 'basic' });
  await fill({ 'User required': 'u-1', 'Password required': 'p-1', Authorities: told.ca });
  await choose({ Retry: 'ladder', 'Counts as delivered': '2xx', Order: 'key', 'While it is paused': 'hold' });
  await fill({
    'Delays': '0s, 1m', Timeout: '5s', 'Fails after': '7', 'Rate limit': '10', 'Rate limit: in': '2s', 'In flight': '3',
    'Key required': 'data.request_id', 'Drain rate': '50', 'Drain rate: in': '1m',
  });
  await addTo('Labels', { Key: 'team', Value: 'blue' });
  await shot('form-all');
  await page.getByRole('button', { name: 'Create' }).click();
  await heading('all');
  const id = idIn(page.url());
  const made = await definition(id);
  const expected = {
    name: 'all',
    events: ['deployment_request_completed'],
    description: 'of everything something',
    attributes: { object_type: 'deployment' },
    filter: { data: { status: 'completed' } },
    transform: { key: '{{variables.routing_key}}' },
    body: null,
    options: { include_result: true },
    variables: [{ key: 'routing_key', value: null, protected: true }],
    headers: [{ key: 'X-Api-Key', value: null, protected: true }],
    authentication: { type: 'basic', username: 'u-1' },
    retry: { delays: ['0s', '1m'] },
    timeout: '5s',
    success: ['2xx'],
    fail_after: 7,
    rate_limit: { requests: 10, per: '2s' },
    max_in_flight: 3,
    ordering: { by: 'key', key: 'data.request_id' },
    pause: 'hold',
    drain_rate: { requests: 50, per: '1m' },
    labels: { team: 'blue' },
  };
  for (const [name, value] of Object.entries(expected)) assert.deepEqual(made[name], value, name);
  assert.equal(made.tls.ca.trim(), told.ca.trim());

  // Opened and saved as it is, it is what it was.
  const edit = async () => {
    await page.getByRole('link', { name: 'Edit', exact: true }).click();
    await heading('Edit all');
  };
  await edit();
  await page.getByRole('button', { name: 'Save' }).click();
  await heading('all');
  const still = await definition(id);
  for (const name of Object.keys(expected)) assert.deepEqual(still[name], made[name], name);

  // One thing is changed, and nothing else; what was chosen is given back to the profile.
  await edit();
  assert.ok(await field('Body').isDisabled(), 'the transform makes it');
  await fill({ 'In flight': '', 'Fails after': '', 'Rate limit': '', Transform: '' });
  await choose({ Body: 'cloudevents', Order: '', 'Counts as delivered': '' });
  await page.getByRole('button', { name: 'Save' }).click();
  await heading('all');
  const back = await definition(id);
  const given = { max_in_flight: null, fail_after: null, rate_limit: null, transform: null, body: 'cloudevents', ordering: null, success: null };
  for (const name of Object.keys(expected)) assert.deepEqual(back[name], name in given ? given[name] : made[name], name);

  // At another host, what is protected has to be given anew, and the form says so at each of them.
  await edit();
  await field('URL required').fill(told.elsewhere);
  await page.getByRole('button', { name: 'Save' }).click();
  await eventually('what is to be given anew', async () => (await page.locator('.field-error').filter({ hasText: 'anew' }).count()) === 3);
  await shot('form-moved');
  await group('Headers').getByLabel('Value', { exact: true }).fill('h-2');
  await group('Variables').getByLabel('Value', { exact: true }).fill('v-2');
  await field('Password').fill('p-2');
  await page.getByRole('button', { name: 'Save' }).click();
  await heading('all');
  assert.equal((await definition(id)).url, told.elsewhere);
});

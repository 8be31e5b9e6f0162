// Webhooks that were made through others' APIs, in the console like any other.
//
// usage: node facades.mjs MODULES < {"api", "screenshots", "webhooks": [{"project", "token", "name", "url", "state"}]}

import { inBrowser, logIn } from './browser.mjs';

await inBrowser(['401 /v1/session'], async (page, told, shot) => {
  for (const { project, token, name, url, state } of told.webhooks) {
    // A project's token leads straight to the project.
    await logIn(page, told, token);
    await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor();
    await page.locator('header').getByText(project, { exact: true }).waitFor();
    await page.getByRole('link', { name: 'Webhooks', exact: true }).click();
    const row = page.getByRole('row').filter({ hasText: url });
    await row.getByRole('link', { name, exact: true }).waitFor();
    await row.getByText(state, { exact: true }).waitFor();
    await shot(`facade-${project}`);
    // Narrowed to what is in another state, it is not among them; narrowed to its own, it is.
    await page.getByLabel('State').selectOption(state === 'active' ? 'paused' : 'active');
    await page.getByText('No webhook is like that.').waitFor();
    await page.getByLabel('State').selectOption(state);
    await row.getByRole('link', { name, exact: true }).click();
    await page.getByRole('heading', { level: 1, name, exact: true }).waitFor();
    await page.locator('.heading').first().getByText(state, { exact: true }).waitFor();
    await page.getByRole('button', { name: 'Log out' }).click();
    await page.getByLabel('Token').waitFor();
  }
});

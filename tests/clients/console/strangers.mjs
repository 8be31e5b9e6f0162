// What others have written, on every page: it is text there, to the letter, and never more than that.
//
// usage: node strangers.mjs MODULES < {"api", "token", "screenshots", "markup": {...}}

import assert from 'node:assert/strict';

import { inBrowser, logIn } from './browser.mjs';

await inBrowser(['401 /v1/session'], async (page, told, shot) => {
  const { markup } = told;
  const project = '/v1/projects/acme';
  const read = (path) => page.evaluate((path) => fetch(path).then((answer) => answer.json()), path);

  /** A page: these texts are on it, and nothing was made of them. */
  const look = async (path, ...texts) => {
    await page.goto(`${told.api}/console${path}`);
    for (const text of texts) {
      // A field's value is not among a page's texts.
      const isShown = (text) => {
        const fields = [...document.querySelectorAll('input, textarea')];
        return document.body.textContent.includes(text) || fields.some((field) => field.value.includes(text));
      };
      await page.waitForFunction(isShown, text).catch(() => assert.fail(`${path} does not show ${text}`));
    }
    const found = await page.evaluate(() => ({
      ran: window.ran,
      made: [...document.querySelectorAll('img, iframe, object, embed, video, audio, base, form[action], [onerror], [onload], script:not([src^="/console/assets/"])')]
        .map((element) => element.outerHTML),
      links: [...document.querySelectorAll('a')].map((link) => link.getAttribute('href')).filter((href) => !/^(\/console\/|#main$)/.test(href)),
    }));
    assert.deepEqual(found, { ran: undefined, made: [], links: [] }, path);
    await page.locator('main').waitFor();
  };

  await logIn(page, told, told.token);
  await page.getByText(markup.token).first().waitFor();
  const [hook] = (await read(`${project}/webhooks`)).items;
  const [attempt] = (await read(`${project}/attempts?status=failed`)).items;
  const [event] = (await read(`${project}/events?type=note.written`)).items;

  await look('/p/acme', markup.token);
  await look('/p/acme/webhooks', markup.name, markup.description, markup.label);
  await shot('strangers-webhooks');
  await look(`/p/acme/webhooks/${hook.id}`, markup.name, markup.description, markup.label, markup.header, markup.filter, markup.transform);
  await look(`/p/acme/webhooks/${hook.id}/edit`, markup.name, markup.description, markup.label, markup.header, markup.transform);
  await page.getByRole('complementary', { name: 'Preview' }).getByText(markup.header).waitFor();
  await look('/p/acme/events', event.id);
  await look(`/p/acme/events/${event.id}`, markup.payload, markup.attribute, markup.name);
  await look('/p/acme/attempts', event.id, markup.name);
  await look(`/p/acme/attempts/${attempt.id}`, markup.body, markup.answered, markup.header, markup.transform, markup.name);
  await shot('strangers-attempt');
  await look('/p/acme/dead-letters', markup.name);
  await look('/p/acme/event-types', markup.type);
  await look('/p/acme/tokens', markup.token);

  // Dialogs, with what they are about.
  await look(`/p/acme/webhooks/${hook.id}`, markup.name);
  await page.getByRole('button', { name: 'Test' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Send the test' }).click();
  await page.getByRole('dialog').getByText(markup.body).waitFor();
  assert.equal(await page.evaluate(() => window.ran), undefined);
});

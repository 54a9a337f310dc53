// The whole page in a real browser, with its engine: what somebody does with it, from the first picture to a trained network,
// and what must not happen meanwhile.
//
//     node page.mjs ../dist [--shots FOLDER]
//
// Figures are printed. It takes some minutes on two cores.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { drawing, launch, serve, tasks, watch } from './browser.mjs';

const dist = path.resolve(process.argv[2]);
const shots = process.argv[3] === '--shots' ? process.argv[4] : null;
if (shots) fs.mkdirSync(shots, { recursive: true });
/** Milliseconds that a task of the main thread may take of a processor. */
const LONGEST = 50;

const server = await serve(dist);
const context = await launch();
const page = await context.newPage();
const faults = watch(page, server.url);
const shot = async (name) => shots && page.screenshot({ path: path.join(shots, `${name}.png`) });
const ready = () => page.waitForFunction(() => document.querySelector('#opening').hidden, null, { timeout: 60_000 });

/** Files of a class for a chooser. */
async function pictures(kind, n, first = 0) {
  const texts = await page.evaluate(async ([kind, n, first]) => {
    const all = [];
    for (let i = first; i < first + n; i += 1) {
      const bytes = new Uint8Array(await (await draw(kind, i, [96, 96])).arrayBuffer());
      all.push(btoa(String.fromCharCode(...bytes)));
    }
    return all;
  }, [kind, n, first]);
  return texts.map((text, i) => ({ name: `${kind}-${first + i}.png`, mimeType: 'image/png', buffer: Buffer.from(text, 'base64') }));
}

async function choose(button, files) {
  const [chooser] = await Promise.all([page.waitForEvent('filechooser'), button.click()]);
  await chooser.setFiles(files);
}

async function ask(kind, i) {
  await page.evaluate(() => { document.querySelector('.verdict')?.replaceChildren(); });
  await choose(page.getByRole('button', { name: 'Choose a picture' }), (await pictures(kind, 1, i))[0]);
  await page.waitForFunction(() => document.querySelector('.verdict')?.textContent);
  return page.locator('.verdict').textContent();
}

const begun = Date.now();
await page.goto(`${server.url}/`);
await ready();
const opened = Date.now() - begun;
await page.evaluate(drawing);
// The policy of the page holds in its worker, too.
const refused = await page.workers()[0].evaluate(() => new Promise((resolve) => {
  self.addEventListener('securitypolicyviolation', ({ effectiveDirective }) => resolve(effectiveDirective), { once: true });
  fetch('https://example.invalid/').catch(() => setTimeout(() => resolve('nothing'), 500));
}));
assert.equal(refused, 'connect-src');
assert.deepEqual(faults.splice(0).filter((fault) => !/Security Policy/.test(fault)), []);

const names = ['Suns', 'Kites', 'Boats', 'Leaves'];
for (const [kind, name] of names.entries()) {
  await page.fill('#new-name', name);
  await page.press('#new-name', 'Enter');
  await page.waitForSelector(`.card[aria-label=${name}]`);
  await choose(page.locator(`.card[aria-label=${name}]`).getByRole('button', { name: 'Add pictures' }), await pictures(kind, 30));
  await page.waitForFunction((name) => document.querySelector(`.card[aria-label=${name}] header .number`).textContent === '30 pictures', name, { timeout: 60_000 });
}
const asked = Date.now();
assert.equal(await ask(0, 99), 'Suns');
console.log(`open after ${opened} ms; an answer takes ${Date.now() - asked} ms`);
const stranger = await ask(9, 99);
console.log(`a stranger: ${stranger}`);
await shot('classes');
assert.equal(await ask(2, 98), 'Boats');

await page.click('#tab-train');
await page.waitForFunction(() => /120 pictures of 4 classes|pictures of 4 classes/.test(document.querySelector('#train').textContent));
await page.fill('#steps', '40');
const all = await tasks(context.browser(), page, async () => {
  const pressed = Date.now();
  await page.getByRole('button', { name: 'Start', exact: true }).click();
  await page.waitForFunction(() => /step [1-9]\d* of 40/.test(document.querySelector('#train').textContent), null, { timeout: 120_000 });
  console.log(`first step ${Date.now() - pressed} ms after the button`);
  await page.waitForFunction(() => /step [23]\d of 40/.test(document.querySelector('#train').textContent), null, { timeout: 120_000 });
  await shot('train');
  for (const view of ['classes', 'see', 'device', 'project', 'train']) {
    await page.click(`#tab-${view}`);
    await page.waitForTimeout(500);
  }
  await page.waitForFunction(() => document.querySelector('#train h3').textContent === 'Done', null, { timeout: 240_000 });
});
console.log(`the longest of ${all.length} tasks while it trained took ${Math.max(...all).toFixed(1)} ms of a processor`);
assert.ok(all.length > 1000 && Math.max(...all) <= LONGEST, 'the page stays responsive');
await page.waitForFunction(() => document.querySelector('[name=network][value=trained]')?.checked, null, { timeout: 60_000 });
await page.click('#tab-see');
await page.waitForSelector('.confusions td.right', { timeout: 60_000 });
await page.waitForTimeout(1500);
await shot('see');

// Without a network: the page, the pictures and the trained network are there.
await page.evaluate(() => navigator.serviceWorker.ready);
await page.waitForFunction(async () => (await caches.keys()).length > 0);
server.close();
await context.setOffline(true);
await page.reload();
await ready();
await page.evaluate(drawing);
assert.equal(await page.locator('.card').count(), 4);
await page.click('#tab-classes');
assert.equal(await ask(1, 97), 'Kites');
await page.click('#tab-train');
assert.ok(await page.locator('[name=network][value=trained]').isChecked());
console.log('works offline after a reload');
if (shots) {
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    for (const [width, height] of [[1280, 860], [390, 844]]) {
      await page.setViewportSize({ width, height });
      for (const view of ['classes', 'train', 'see', 'device', 'project']) {
        await page.click(`#tab-${view}`);
        await page.waitForTimeout(800);
        await shot(`${view}-${width}-${colorScheme}`);
      }
    }
  }
}
assert.deepEqual(faults, []);
await context.close();
console.log('ok the whole page');
process.exit(0);

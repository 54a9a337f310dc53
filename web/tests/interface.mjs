// The page over a mock worker, in Chromium: `npm install && node interface.mjs` (CHROMIUM names another browser).
// With `--shots FOLDER` it leaves pictures of the page there.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';
import { serve, tasks, watch } from './browser.mjs';

const at = (path) => new URL(path, import.meta.url).pathname;
const shots = process.argv.includes('--shots') ? process.argv[process.argv.indexOf('--shots') + 1] : null;
if (shots) mkdirSync(shots, { recursive: true });
/** Milliseconds that a task of the main thread may take of a processor: what it waits for one says nothing of the page. */
const LONGEST = 50;
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

let mock = {};
let version = 1;
const FILES = ['index.html', ...readdirSync(at('../page')).filter((name) => /\.(js|css|svg|webmanifest)$/.test(name) && name !== 'sw.js')];
const server = await serve(at('../page'), {
  '/worker.js': () => `self.MOCK = ${JSON.stringify(mock)};\n${readFileSync(at('mock-worker.js'), 'utf8')}`,
  // As the build fills it in.
  '/sw.js': () => readFileSync(at('../page/sw.js'), 'utf8').replace('/*FILES*/[]', JSON.stringify(FILES)).replace('/*VERSION*/""', `"${version}"`),
  '/strings.js': () => `${readFileSync(at('../page/strings.js'), 'utf8')}\nS.title += '${version > 1 ? ` ${version}` : ''}';`,
});
const address = `${server.url}/`;
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
    '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'],
});

/** A page over a worker with these answers; what it complains of and asks of other places is collected. */
async function open(answers = {}, { width = 1280, height = 860, colorScheme = 'light', hash = '', permissions = [], serviceWorkers = 'block' } = {}) {
  mock = answers;
  const context = await browser.newContext({ viewport: { width, height }, colorScheme, permissions, serviceWorkers });
  const page = await context.newPage();
  const faults = watch(page, server.url, ['ervice worker', 'erviceWorker', 'Service Worker', 'ERR_INTERNET_DISCONNECTED']);
  await page.goto(address + hash);
  await page.waitForFunction(() => document.querySelector('#opening').hidden || document.querySelector('#opening').classList.contains('bad'));
  return { page, faults, close: async () => {
    assert.deepEqual(faults, []);
    await context.close();
  } };
}

const png = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAYAAACNMs+9AAAAFUlEQVR42mNk+M9Qz0AEYBxVSF+FAAhKDveksOjmAAAAAElFTkSuQmCC', 'base64');
const picture = (name) => ({ name, mimeType: 'image/png', buffer: png });
const text = (page, selector) => page.locator(selector).innerText();
const calls = (page) => page.evaluate(async () => (await import('./link.js')).call('counts'));
/** What people with other eyes, ears and hands cannot use, contrast included, by the rules of axe. */
async function unreadable(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => axe.run());
  return violations.flatMap(({ id, help, nodes }) => nodes.map(({ target, failureSummary }) => `${id}: ${help}: ${target}: ${failureSummary}`));
}
async function shot(page, name) {
  if (shots) await page.screenshot({ path: `${shots}/${name}.png` });
}
const settled = (page) => page.waitForTimeout(700);
async function choose(page, button, files) {
  const [chooser] = await Promise.all([page.waitForEvent('filechooser'), button.click()]);
  await chooser.setFiles(files);
}

const tests = {
  async 'classes are made and renamed, pictures added'() {
    const { page, close } = await open();
    await page.fill('#new-name', 'Cats');
    await page.press('#new-name', 'Enter');
    await page.waitForSelector('.card');
    await page.fill('#new-name', 'Cats');
    await page.press('#new-name', 'Enter');
    await page.waitForSelector('.toast.bad');
    await page.fill('.card .name', 'Felines');
    await page.press('.card .name', 'Enter');
    await page.waitForSelector('.card[aria-label=Felines]');
    await choose(page, page.getByRole('button', { name: 'Add pictures' }), [picture('a.png'), picture('b.png'), { name: 'c.txt', mimeType: 'text/plain', buffer: Buffer.from('no') }]);
    await page.waitForFunction(() => document.querySelector('.card header .number').textContent === '2 pictures');
    await page.waitForSelector('#refused:not([hidden])');
    assert.match(await page.locator('#refused').textContent(), /c\.txt This is no picture/);
    await page.waitForFunction(() => document.querySelectorAll('.card .thumb[src]').length === 2);
    await close();
  },

  async 'a file without a folder asks for its class'() {
    const { page, close } = await open();
    await choose(page, page.getByRole('button', { name: 'Pictures or zip' }), [picture('a.png')]);
    await page.waitForSelector('dialog[open]');
    await page.keyboard.type('Dogs');
    await page.keyboard.press('Enter');
    await page.waitForSelector('.card[aria-label=Dogs]');
    assert.equal(await page.locator('dialog').count(), 0);
    await close();
  },

  async 'drops and pastes go where they belong'() {
    const { page, close } = await open({ classes: 2, pictures: 4 });
    await page.waitForSelector('.card');
    /** Files of these names are dropped on or pasted into what the selector finds. */
    const send = (kind, selector, names) => page.evaluate(([kind, selector, names]) => {
      const transfer = new DataTransfer();
      for (const name of names) transfer.items.add(new File(['x'], name, { type: name.endsWith('.zip') ? 'application/zip' : 'image/png' }));
      const more = kind === 'paste' ? { clipboardData: transfer } : { dataTransfer: transfer };
      document.querySelector(selector).dispatchEvent(new (kind === 'paste' ? ClipboardEvent : DragEvent)(kind, { bubbles: true, cancelable: true, ...more }));
    }, [kind, selector, names]);
    const counts = (expected) => page.waitForFunction((expected) => [...document.querySelectorAll('.card header .number')].map((one) => parseInt(one.textContent, 10)).join() === expected, expected);
    await send('drop', '.card', ['a.png', 'b.png']);
    await counts('4,2');
    await send('drop', '#ask', ['c.png']);
    await page.waitForFunction(() => document.querySelector('.verdict').textContent === 'Cups');
    await send('paste', 'body', ['strange.png']);
    await page.waitForFunction(() => document.querySelector('.verdict').textContent === 'None of these');
    await page.locator('.card .name').nth(1).focus();
    await send('paste', 'body', ['d.png']);
    await counts('4,3');
    await send('drop', 'main', ['project.zip']);
    await counts('4,3,3');
    await send('drop', 'main', ['e.png']);
    await page.waitForSelector('dialog[open]');
    await page.getByRole('button', { name: 'Add', exact: true }).click();
    await counts('5,3,3');
    await page.locator('.card').first().getByRole('button', { name: 'Delete' }).click();
    await page.locator('dialog').getByRole('button', { name: 'Delete class' }).click();
    await counts('3,3');
    await page.keyboard.press('Escape');
    await page.getByRole('button', { name: /^Undo/ }).click();
    await counts('5,3,3');
    await close();
  },

  async 'a picture is deleted and undone by keyboard alone'() {
    const { page, close } = await open({ classes: 2, pictures: 20 });
    await page.waitForSelector('.grid [role=option]');
    await page.locator('.card .name').first().focus();
    await page.keyboard.press('Tab');
    assert.equal(await page.evaluate(() => document.activeElement.getAttribute('role')), 'option');
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('Delete');
    await page.waitForFunction(() => document.querySelector('.card header .number').textContent === '9 pictures');
    await page.waitForFunction(() => document.activeElement.getAttribute('role') === 'option');
    await page.keyboard.press('Control+z');
    await page.waitForFunction(() => document.querySelector('.card header .number').textContent === '10 pictures');
    await page.keyboard.press('Space');
    assert.equal(await page.locator('[aria-selected=true][role=option]').count(), 1);
    await page.keyboard.press('Control+a');
    assert.match(await text(page, '.picked:not([hidden])'), /10 selected/);
    await page.keyboard.press('Enter');
    await page.waitForSelector('dialog .near');
    await page.keyboard.press('Escape');
    await page.waitForSelector('dialog', { state: 'detached' });
    await page.locator('.picked select').first().selectOption({ index: 1 });
    await page.waitForFunction(() => document.querySelectorAll('.card header .number')[1].textContent === '20 pictures');
    await close();
  },

  async 'tabs are walked by arrows'() {
    const { page, close } = await open({ classes: 2, pictures: 4 });
    await page.focus('#tab-classes');
    await page.keyboard.press('ArrowRight');
    assert.equal(await page.evaluate(() => document.body.dataset.view), 'train');
    await page.keyboard.press('End');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'tab-project');
    await close();
  },

  async 'it answers, says none of these, and is corrected'() {
    const { page, close } = await open({ classes: 3, pictures: 30 });
    const button = page.getByRole('button', { name: 'Choose a picture' });
    await choose(page, button, picture('strange.png'));
    await page.waitForFunction(() => document.querySelector('.verdict').textContent === 'None of these');
    await settled(page);
    await shot(page, 'ask-none');
    await choose(page, button, picture('cup.png'));
    await page.waitForFunction(() => document.querySelector('.verdict').textContent === 'Cups');
    assert.equal(await page.locator('.bars li').count(), 3);
    assert.equal(await page.locator('#ask .near li').count(), 8);
    await page.locator('.correct').getByRole('button', { name: 'Keys' }).click();
    await page.waitForFunction(() => document.querySelectorAll('.card header .number')[1].textContent === '11 pictures');
    await choose(page, button, picture('cup.png'));
    await page.locator('.correct').getByRole('button', { name: 'Another class' }).click();
    await page.locator('dialog select').selectOption('new');
    await page.locator('dialog input').fill('Forks');
    await page.keyboard.press('Enter');
    await page.waitForSelector('.card[aria-label=Forks]');
    await page.locator('#unknown').focus();
    await page.keyboard.press('ArrowRight');
    await page.waitForFunction(() => document.querySelector('output').textContent === '6 %');
    const made = await calls(page);
    assert.equal(made.correct, 2);
    assert.equal(made.setUnknown, 1);
    await close();
  },

  async 'the camera takes pictures while held, and answers live'() {
    const { page, close } = await open({ classes: 2, pictures: 4 }, { permissions: ['camera'] });
    await page.getByRole('button', { name: 'Camera', exact: true }).first().click();
    await page.waitForSelector('dialog video');
    await page.waitForFunction(() => document.activeElement.classList.contains('shutter'));
    await page.keyboard.down('Space');
    await page.waitForTimeout(900);
    await page.keyboard.up('Space');
    await page.keyboard.press('Escape');
    await page.waitForFunction(() => parseInt(document.querySelector('.card header .number').textContent, 10) >= 5);
    await page.getByRole('button', { name: 'Live camera' }).click();
    await page.waitForFunction(() => document.querySelector('.verdict').textContent === 'Cups');
    await page.waitForTimeout(1200);
    const { ask } = await calls(page);
    assert.ok(ask >= 2 && ask <= 9, `asked ${ask} times`);
    await page.getByRole('button', { name: 'Stop the camera' }).click();
    await close();
  },

  async 'training shows its curves, pauses, goes on, ends'() {
    const { page, close } = await open({ classes: 4, pictures: 40 }, { hash: '#train' });
    await page.waitForFunction(() => /40 pictures of 4 classes/.test(document.querySelector('#train').textContent));
    await page.fill('#steps', '120');
    await page.getByRole('button', { name: 'Start', exact: true }).click();
    await page.waitForFunction(() => document.querySelector('.curve').getAttribute('d')?.length > 40);
    const before = await page.locator('.curve').first().getAttribute('d');
    await page.waitForFunction((old) => document.querySelector('.curve').getAttribute('d') !== old, before);
    await page.getByRole('button', { name: 'Pause' }).click();
    await page.waitForFunction(() => /Paused/.test(document.querySelector('#train h3').textContent));
    await shot(page, 'train-paused');
    await page.getByRole('button', { name: 'Resume' }).click();
    await page.waitForFunction(() => document.querySelector('#train h3').textContent === 'Done', null, { timeout: 20_000 });
    await page.waitForFunction(() => document.querySelector('[name=network][value=trained]')?.checked);
    await page.locator('[name=network][value=shipped]').check();
    await page.waitForSelector('.toast');
    assert.equal((await calls(page)).useNetwork, 1);
    await close();
  },

  async 'it shows map, neighbours and confusions'() {
    const { page, close } = await open({ classes: 5, pictures: 200 }, { hash: '#see' });
    await page.waitForSelector('.confusions td.right');
    await settled(page);
    await shot(page, 'see');
    await page.focus('.map');
    await page.keyboard.press('ArrowRight');
    await page.waitForSelector('.tip:not([hidden])');
    await page.keyboard.press('Enter');
    await page.waitForSelector('dialog .near li');
    await page.keyboard.press('Escape');
    await close();
  },

  async 'the device is checked and measured'() {
    const { page, close } = await open({}, { hash: '#device' });
    await page.getByRole('button', { name: 'Check the kernels' }).click();
    await page.waitForSelector('.good');
    await page.getByRole('button', { name: 'Measure the kernels' }).click();
    const download = page.waitForEvent('download');
    await page.getByRole('button', { name: 'Download the JSON' }).click();
    assert.equal((await download).suggestedFilename(), 'ieq-wgpu-bench.json');
    await close();
  },

  async 'the project goes out and is erased'() {
    const { page, close } = await open({ classes: 2, pictures: 4 }, { hash: '#project' });
    const download = page.waitForEvent('download');
    await page.getByRole('button', { name: 'Export zip' }).click();
    assert.equal((await download).suggestedFilename(), 'project.zip');
    await page.getByRole('button', { name: 'Export run' }).click();
    await page.waitForSelector('.toast.bad');
    await page.getByRole('button', { name: 'Erase everything' }).click();
    await page.waitForSelector('dialog[open]');
    assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Keep');
    await page.keyboard.press('Escape');
    await page.waitForSelector('dialog', { state: 'detached' });
    assert.equal((await calls(page)).eraseAll, undefined);
    await close();
  },

  async 'what has changed is written when the page goes out of sight'() {
    const { page, close } = await open({ classes: 1, pictures: 2 });
    const hide = (hidden) => page.evaluate((hidden) => {
      Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
      document.dispatchEvent(new Event('visibilitychange'));
    }, hidden);
    await hide(true);
    await hide(false);
    assert.equal((await calls(page)).save, 1);
    // A page that is kept aside ends its worker, and loads again when it is shown.
    await page.evaluate(() => dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true })));
    await Promise.all([page.waitForNavigation(), page.evaluate(() => dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true })))]);
    await page.waitForSelector('.card');
    await close();
  },

  async 'without WebGPU it says so and still collects'() {
    const { page, close } = await open({ gpu: false });
    assert.match(await text(page, '#banner'), /no WebGPU/);
    await page.locator('#banner summary').click();
    await shot(page, 'no-webgpu');
    await page.fill('#new-name', 'Cats');
    await page.press('#new-name', 'Enter');
    await page.waitForSelector('.card');
    await close();
  },

  async 'a lost device is said and opened again'() {
    const { page, close } = await open({ classes: 2, pictures: 4 });
    await page.evaluate(async () => (await import('./link.js')).call('release'));
    await page.waitForSelector('#banner:not([hidden])');
    await page.getByRole('button', { name: 'Open it again' }).click();
    await page.waitForSelector('#banner', { state: 'hidden' });
    await close();
  },

  async 'both themes, wide and narrow, without scrolling sideways'() {
    for (const colorScheme of ['light', 'dark']) {
      for (const [width, height] of [[1280, 860], [390, 844]]) {
        const { page, close } = await open({ classes: 5, pictures: 190 }, { width, height, colorScheme });
        if (width === 390) await page.click('#tab-ask');
        await choose(page, page.getByRole('button', { name: 'Choose a picture' }), picture('cup.png'));
        await page.waitForSelector('.bars li');
        for (const view of ['classes', 'ask', 'train', 'see', 'device', 'project']) {
          if (width > 390 && view === 'ask') continue;
          await page.click(`#tab-${view}`);
          if (view === 'train') {
            await page.getByRole('button', { name: 'Start', exact: true }).click();
            await page.waitForFunction(() => /step [3-9]\d of/.test(document.querySelector('#train').textContent));
          }
          await settled(page);
          const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
          assert.ok(over <= 0, `${view} at ${width}: ${over} pixels too wide`);
          assert.deepEqual(await unreadable(page), [], `${view} at ${width}, ${colorScheme}`);
          await shot(page, `${view}-${width}-${colorScheme}`);
        }
        const back = await page.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number)[0]);
        assert.equal(back < 128, colorScheme === 'dark');
        await close();
      }
    }
  },

  async 'it loads without a network, and takes a new version at the next load'() {
    const { page, close } = await open({ classes: 2, pictures: 4 }, { serviceWorkers: 'allow' });
    /** Waits until there is a worker of a state. */
    const worker = async (state) => {
      for (let i = 0; i < 100; i += 1) {
        if (await page.evaluate(async (state) => Boolean((await navigator.serviceWorker.getRegistration())?.[state]), state)) return;
        await page.waitForTimeout(50);
      }
      assert.fail(`no service worker is ${state}`);
    };
    await worker('active');
    await page.evaluate(async () => (await navigator.serviceWorker.ready).active.state === 'activated' || new Promise((resolve) => navigator.serviceWorker.addEventListener('controllerchange', resolve)));
    await page.context().setOffline(true);
    await page.reload();
    await page.waitForSelector('.card');
    await page.context().setOffline(false);
    version = 2;
    await page.reload();
    assert.equal(await text(page, 'h1'), 'ieq-wgpu');
    // It is fetched, and takes over.
    for (let i = 0; !/^[^,]* 2$/.test((await page.evaluate(() => caches.keys())).join()); i += 1) {
      assert.ok(i < 200, 'the new version takes over');
      await page.waitForTimeout(50);
    }
    await page.reload();
    await page.waitForSelector('.card');
    assert.equal(await text(page, 'h1'), 'ieq-wgpu 2');
    await page.context().setOffline(true);
    await page.reload();
    await page.waitForSelector('.card');
    await page.context().setOffline(false);
    version = 1;
    await close();
  },

  async '5,000 pictures and a run leave the page responsive'() {
    const { page, close } = await open({ classes: 25, pictures: 5000 });
    const all = await tasks(browser, page, async () => {
      await page.reload();
      await page.waitForFunction(() => document.querySelectorAll('.card').length === 25);
      await settled(page);
      await page.evaluate(async () => (await import('./link.js')).call('train', { from: 'shipped', steps: 5000, seed: 0 }));
      for (const view of ['train', 'classes', 'see', 'classes']) {
        await page.click(`#tab-${view}`);
        await page.waitForTimeout(1000);
      }
      for (let i = 0; i < 10; i += 1) {
        await page.mouse.wheel(0, 700);
        await page.waitForTimeout(100);
      }
      await page.getByRole('button', { name: 'Show all 200' }).first().click();
      await page.waitForTimeout(500);
      assert.ok(await page.locator('.grid').first().locator('[role=option]').count() <= 60);
    });
    const longest = Math.max(...all);
    console.log(`        the longest of ${all.length} tasks took ${longest.toFixed(1)} ms of a processor`);
    assert.ok(all.length > 1000 && longest <= LONGEST, `a task took ${longest} ms`);
    await close();
  },
};

const wanted = process.argv.slice(2).filter((one) => !one.startsWith('--') && one !== shots).join(' ');
let failed = 0;
for (const [name, test] of Object.entries(tests)) {
  if (!name.includes(wanted)) continue;
  try {
    await test();
    console.log(`ok      ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}\n${error.stack}`);
  }
}
await browser.close();
server.close();
process.exit(failed ? 1 : 0);

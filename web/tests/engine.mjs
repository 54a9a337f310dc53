// The worker of the page in a real browser, without the page around it: what PROTOCOL.md promises, beside the program.
//
//     node engine.mjs ../dist PROGRAM [part of a test's name]
//
// BROWSER=firefox tries it in Debian's firefox-esr, on the Vulkan driver that VK_DRIVER_FILES names.
// PROGRAM is a native build of ieq-wgpu: pictures, projects and checkpoints go back and forth between both. Figures that the
// issue of a release asks for are printed. It takes some minutes on two cores.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { drawing, isFirefox, launch, serve, watch } from './browser.mjs';

const [dist, program, only = ''] = process.argv.slice(2);
const server = await serve(path.resolve(dist));
const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'engine-'));
const native = (...words) => execFileSync(path.resolve(program), words, { cwd: scratch, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
let context;

/** A page with a worker and `call`; `browser` starts anew where there is none. */
async function open() {
  context ??= await launch();
  const page = await context.newPage();
  page.faults = watch(page, server.url, ['device was lost', 'Device was destroyed']);
  await page.goto(`${server.url}/blank.html`);
  await page.evaluate(drawing);
  await page.evaluate(() => {
    const worker = new Worker('/worker.js', { type: 'module' });
    const waiting = new Map();
    let number = 0;
    Object.assign(window, { worker, events: [] });
    worker.onmessage = ({ data }) => {
      if (!data.id) return window.events.push(data);
      const [resolve, reject] = waiting.get(data.id);
      return data.error ? reject(new Error(`${data.error.kind}: ${data.error.message}`)) : resolve(data.result);
    };
    window.call = (call, args = {}) => new Promise((resolve, reject) => {
      waiting.set((number += 1), [resolve, reject]);
      worker.postMessage({ id: number, call, args });
    });
    /** Bytes of a file as text that crosses to the test. */
    window.base64 = async (file) => {
      let text = '';
      const bytes = new Uint8Array(await file.arrayBuffer());
      for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
      return btoa(text);
    };
    window.fileOf = (text, name) => new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], name);
    window.items = async (kinds, each, first = 0) => {
      const list = [];
      for (const kind of kinds) {
        for (let i = first; i < first + each; i += 1) list.push({ file: await window.draw(kind, i), name: `kind ${kind}/${i}.png`, class: `kind ${kind}` });
      }
      return list;
    };
    window.until = async (test, seconds = 300) => {
      const end = performance.now() + 1000 * seconds;
      while (!(await test())) {
        if (performance.now() > end) throw new Error(`nothing came within ${seconds} s; last: ${window.events.at(-1)?.run?.message ?? JSON.stringify(window.events.at(-1)).slice(0, 300)}`);
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    };
    window.lastRun = () => window.events.findLast((one) => one.run)?.run;
  });
  return page;
}

async function fresh() {
  await context?.close();
  context = null;
  return open();
}

const save = (name, text) => {
  const file = path.join(scratch, name);
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, Buffer.from(text, 'base64'));
  return file;
};
const load = (name) => fs.readFileSync(path.join(scratch, name)).toString('base64');

/** Rows of a CSV by path. */
function rows(text) {
  return new Map(text.trim().split('\n').slice(1).map((line) => {
    const [name, ...numbers] = line.split(',');
    return [name.replaceAll('"', ''), numbers.map(Number)];
  }));
}

const tests = {
  async 'the same rows as the program'() {
    const page = await fresh();
    const found = await page.evaluate(async () => {
      const begun = performance.now();
      await call('open');
      const opened = performance.now() - begun;
      const sizes = [[32, 32], [40, 40], [64, 48], [33, 57], [300, 200], [1200, 900], [20, 20], [128, 128], [31, 90], [512, 512]];
      const list = [];
      for (let i = 0; i < 20; i += 1) {
        const jpeg = i % 2 === 1;
        const file = await draw(i, i, sizes[i % sizes.length], jpeg ? 'image/jpeg' : 'image/png');
        list.push({ file, name: `all/${String(i).padStart(2, '0')}.${jpeg ? 'jpg' : 'png'}`, class: 'all' });
      }
      const { added } = await call('addPictures', { items: list });
      const { file } = await call('exportRows');
      const first = performance.now() - begun;
      return { opened, first, added, csv: await file.text(), files: await Promise.all(list.map(async ({ name, file }) => [name, await base64(file)])) };
    });
    assert.equal(found.added, 20);
    for (const [name, text] of found.files) save(name, text);
    native('embed', 'shipped:pictures', 'all', '--out', 'native.csv');
    const [ours, theirs] = [rows(found.csv), rows(fs.readFileSync(path.join(scratch, 'native.csv'), 'utf8'))];
    let worst = 0;
    for (const [name, row] of theirs) {
      const own = ours.get(name.split('/').slice(-2).join('/'));
      const scale = Math.max(...row.map(Math.abs));
      row.forEach((x, i) => { worst = Math.max(worst, Math.abs(x - own[i]) / scale); });
    }
    console.log(`  open ${found.opened.toFixed(0)} ms, 20 rows after ${found.first.toFixed(0)} ms, largest difference ${worst.toExponential(1)} of a row's largest number`);
    assert.ok(worst <= 1e-4, `the rows differ by ${worst}`);
    assert.deepEqual(page.faults, []);
  },

  async 'classes, answers, strangers, corrections'() {
    const page = await fresh();
    const found = await page.evaluate(async () => {
      await call('open');
      await call('addPictures', { items: await items([0, 1, 2], 12) });
      const right = [];
      for (const kind of [0, 1, 2]) {
        const answer = await call('ask', { file: await draw(kind, 50) });
        right.push(answer);
      }
      const before = await call('ask', { file: await draw(8, 50) });
      const { id } = await call('correct', { class: 'a new one' });
      for (let i = 51; i < 55; i += 1) { await call('ask', { file: await draw(8, i) }); await call('correct', { class: 'a new one' }); }
      const after = await call('ask', { file: await draw(8, 60) });
      const { classes } = events.findLast((one) => one.event === 'project').project;
      const refused = await call('addPictures', { items: [{ file: new Blob(['no picture']), name: 'x/no.png', class: null }, { file: await draw(1, 1), name: 'loose.png', class: null }] });
      await call('deletePictures', { ids: [id] });
      const { what } = await call('undo');
      const waiting = [call('addPictures', { items: await items([5], 20) }), call('addPictures', { items: await items([6], 20) })];
      await call('cancel', { what: 'adding' });
      const cancelled = (await Promise.all(waiting)).map(({ added }) => added);
      const { thumbnail } = { thumbnail: await call('thumbnail', { id }) };
      const sentences = [];
      for (const [name, args] of [['addClass', { name: ' ' }], ['addClass', { name: ' kind 1' }], ['renameClass', { id: 99999, name: 'x' }], ['nonsense', {}], ['setUnknown', { rate: 2 }]]) {
        await call(name, args).catch((error) => sentences.push(error.message));
      }
      return { right, before, after, classes, refused, what, cancelled, size: thumbnail.size, sentences };
    });
    const name = (id) => found.classes.find((one) => one.id === id)?.name;
    found.right.forEach((answer, kind) => assert.equal(name(answer.class ?? answer.nearest), `kind ${kind}`));
    assert.equal(name(found.after.class), 'a new one');
    assert.equal(found.refused.added, 0);
    assert.match(found.refused.refused[0].why, /no picture that this browser can read/);
    assert.match(found.refused.refused[1].why, /lies in no class/);
    assert.match(found.what, /deleting a picture/);
    assert.ok(found.cancelled[0] < 20 && found.cancelled[1] === 0, `what waits its turn is cancelled, too: ${found.cancelled}`);
    assert.ok(found.size > 50);
    assert.equal(found.sentences.length, 5);
    console.log(`  a stranger was ${found.before.none ? 'none of these' : `taken for ${name(found.before.class)}`}`);
    assert.ok(found.before.none, 'a stranger is none of these');
    assert.deepEqual(page.faults, []);
  },

  async 'training, a reload, the same bits, and back and forth with the program'() {
    const STEPS = 30;
    const begin = async (page) => page.evaluate(async (steps) => {
      await call('open');
      await call('addPictures', { items: await items([...Array(12).keys()].map((kind) => 100 + kind), 12) });
      const begun = performance.now();
      await call('train', { from: 'scratch', steps, seed: 3 });
      return (performance.now() - begun) / 1e3;
    }, STEPS);
    const finish = (page) => page.evaluate(async () => {
      await until(() => ['done', 'failed'].includes(lastRun()?.state));
      const run = lastRun();
      return { run, checkpoint: run.state === 'done' ? await base64((await call('exportRun')).file) : null };
    });
    let page = await fresh();
    const firstStep = await begin(page);
    const whole = await finish(page);
    assert.equal(whole.run.state, 'done', whole.run.message);
    const { points } = whole.run;
    const losses = points.filter((point) => point.loss !== null).map((point) => point.loss);
    const mean = (list) => list.reduce((a, b) => a + b, 0) / list.length;
    const scores = points.filter((point) => point.validation !== null).map((point) => point.validation);
    console.log(`  first step after ${firstStep.toFixed(1)} s; loss ${mean(losses.slice(0, 5)).toFixed(2)} to ${mean(losses.slice(-5)).toFixed(2)}; classes held out ${(100 * scores[0]).toFixed(1)} to ${(100 * Math.max(...scores)).toFixed(1)} %`);
    assert.ok(mean(losses.slice(-5)) < 0.8 * mean(losses.slice(0, 5)), 'the loss falls');
    assert.equal(points.find((point) => point.validation !== null).step, 0, 'the untrained network is scored');
    assert.ok(Math.max(...scores) > scores[0], 'the accuracy on held-out classes rises');
    assert.deepEqual(page.faults, []);
    const project = await page.evaluate(async () => base64((await call('exportProject')).file));
    const network = await page.evaluate(async () => base64((await call('exportCheckpoint')).file));

    // Again, with pauses and the page closed in between.
    page = await fresh();
    await begin(page);
    await page.evaluate(async () => {
      await until(() => lastRun()?.step >= 7);
      await call('pause');
    });
    const kept = await page.evaluate(() => lastRun());
    assert.equal(kept.state, 'paused');
    assert.ok(kept.savedStep >= 7 && kept.savedStep < STEPS, `${kept.savedStep}`);
    // A picture that is deleted meanwhile changes nothing of the run.
    await page.evaluate(() => call('deletePictures', { ids: events.findLast((one) => one.event === 'project').project.classes[0].pictures.slice(0, 2) }));
    await page.waitForTimeout(1500);
    await page.close();
    page = await open();
    const state = await page.evaluate(async () => call('open'));
    assert.equal(state.run.state, 'paused');
    assert.equal(state.run.savedStep, kept.savedStep);
    await page.evaluate(() => call('resume'));
    const resumed = await finish(page);
    assert.equal(resumed.run.state, 'done', resumed.run.message);
    assert.ok(resumed.checkpoint === whole.checkpoint, 'a run that was closed ends in the same bits');
    assert.deepEqual(page.faults, []);

    // The project as data of the program, the network as its checkpoint.
    save('project.zip', project);
    save('network.safetensors', network);
    native('train', '--data', 'project.zip', '--steps', '4', '--out', 'run', '--widths', '8,8,8,16');
    native('embed', 'network.safetensors', 'project.zip', '--out', 'rows.csv');
    const rowsOfProgram = rows(fs.readFileSync(path.join(scratch, 'rows.csv'), 'utf8'));
    assert.equal(rowsOfProgram.size, 144);
    const scored = JSON.parse(native('eval', 'network.safetensors', '--data', 'project.zip', '--split', 'all', '--queries', '5', '--n-episodes', '50', '--json'));
    const told = JSON.parse(native('predict', '--model', 'network.safetensors', '--support', 'project.zip', 'project.zip', '--json'));
    assert.ok(JSON.stringify(scored).includes('accuracy') && told.classes.length === 12);
    const back = await page.evaluate(async ([zip, checkpoint]) => {
      await call('eraseAll');
      await call('open').catch(() => {});
      return null;
    }, []);
    assert.equal(back, null);
    page = await fresh();
    const again = await page.evaluate(async ([zip, checkpoint]) => {
      await call('open');
      const { added } = await call('importProject', { file: fileOf(zip, 'project.zip') });
      const { network } = await call('importCheckpoint', { file: fileOf(checkpoint, 'checkpoint.safetensors') });
      const { counts, right, total } = await call('confusions');
      return { added, network, classes: counts.length, right, total };
    }, [load('project.zip'), load('run/checkpoint.safetensors')]);
    assert.equal(again.added, 144);
    assert.equal(again.network.width, 16);
    assert.equal(again.classes, 12);
    assert.equal(again.total, 144);
  },

  async 'a device that is lost'() {
    const page = await fresh();
    const found = await page.evaluate(async () => {
      await call('open');
      await call('addPictures', { items: await items([0, 1, 2, 3], 10) });
      await call('train', { from: 'shipped', steps: 40, seed: 0 });
      await until(() => lastRun().step >= 3);
      await call('pause');
      await call('resume');
      const from = lastRun().savedStep;
      await until(() => lastRun().step > from);
      await call('release');
      await until(() => events.some((one) => one.event === 'reopened'), 60);
      await until(() => lastRun().state === 'training' && lastRun().step > from + 2, 120);
      await call('pause');
      const answer = await call('ask', { file: await draw(1, 77) });
      return { from, run: lastRun(), lost: events.find((one) => one.event === 'lost').message, ready: answer.ready };
    });
    console.log(`  lost: ${found.lost.slice(0, 60)}...; went on from step ${found.from} to ${found.run.step}`);
    assert.ok(found.ready && found.run.savedStep > found.from);
  },

  async 'five thousand pictures'() {
    const page = await fresh();
    const kind = isFirefox ? '-contentproc.* tab$' : '--type=renderer';
    const used = () => Number(execFileSync('sh', ['-c', `ps -eo rss,args | grep -E -- '${kind}' | grep -v grep | awk '{ n += $1 } END { print n / 1024 }'`], { encoding: 'utf8' }));
    await page.evaluate(() => call('open'));
    const memory = [];
    const begun = Date.now();
    for (let part = 0; part < 5; part += 1) {
      const added = await page.evaluate(async (part) => (await call('addPictures', { items: await items([...Array(20).keys()], 50, 50 * part) })).added, part);
      assert.equal(added, 1000);
      memory.push(Math.round(used()));
    }
    const seconds = (Date.now() - begun) / 1e3;
    const found = await page.evaluate(async () => {
      const answer = await call('ask', { file: await draw(3, 9999) });
      const { file } = await call('exportProject');
      const begun = performance.now();
      const map = await call('map');
      return { ready: answer.ready, bytes: file.size, points: map.points.length, ms: performance.now() - begun };
    });
    console.log(`  ${(5000 / seconds).toFixed(0)} pictures/s; memory of the renderers after each thousand: ${memory.join(', ')} MiB; map in ${found.ms.toFixed(0)} ms`);
    assert.ok(memory[4] < memory[0] + 150, `memory grows: ${memory}`);
    assert.ok(found.ready && found.bytes > 1e6 && found.points === 2000);
    const reopened = await (await (async () => { await page.close(); return open(); })()).evaluate(async () => {
      const begun = performance.now();
      const state = await call('open');
      return { pictures: state.project.pictures, ms: performance.now() - begun };
    });
    console.log(`  opened again in ${reopened.ms.toFixed(0)} ms`);
    assert.equal(reopened.pictures, 5000);
  },

  async 'a second tab is told'() {
    await fresh();
    const [first, second] = [context.pages().at(-1), await open()];
    await first.evaluate(() => call('open'));
    const sentence = await second.evaluate(() => call('open').catch((error) => error.message));
    assert.match(sentence, /open in another tab/);
  },

  async 'folders, names and kinds of pictures'() {
    const page = await fresh();
    const found = await page.evaluate(async () => {
      await call('open');
      const file = await draw(1, 1);
      const png = new Uint8Array(await file.arrayBuffer());
      // A picture in an icon, which the program does not read.
      const head = new DataView(new ArrayBuffer(22));
      [[2, 1], [4, 1], [10, 1], [12, 32]].forEach(([at, value]) => head.setUint16(at, value, true));
      head.setUint8(6, 40);
      head.setUint8(7, 40);
      head.setUint32(14, png.length, true);
      head.setUint32(18, 22, true);
      const icon = new Blob([head.buffer, png], { type: 'image/x-icon' });
      const names = ['all/Greek/a/1.png', 'all/Greek/A/2.png', 'all/Latin/a/3.png', 'all/notes.txt', 'all/.cache/x/4.png', `all/Latin/a/${'l'.repeat(150)}.png`];
      const one = await call('addPictures', { items: names.map((name) => ({ file, name, class: null })) });
      const two = await call('addPictures', { items: [{ file: icon, name: 'icon.ico', class: '.hidden' }] });
      const { classes } = events.findLast((one) => one.event === 'project').project;
      const { file: zip } = await call('exportProject');
      const [{ id }] = classes;
      await call('deleteClass', { id });
      await call('addClass', { name: 'Greek/a' });
      await call('undo');
      const twice = events.findLast((one) => one.event === 'project').project.classes.map(({ name }) => name);
      await call('deleteClass', { id: events.findLast((one) => one.event === 'project').project.classes.find(({ pictures, name }) => !pictures.length && name === 'Greek/a').id });
      await call('renameClass', { id, name: 'Greek/a' });
      return { one, two, twice, classes: classes.map(({ name, pictures }) => [name, pictures.length]), zip: await base64(zip) };
    });
    assert.deepEqual(found.classes, [['Greek/a', 1], ['Greek/A', 1], ['Latin/a', 2], ['.hidden', 1]]);
    assert.deepEqual(found.twice.slice(0, 2), ['Greek/a 2', 'Greek/A']);
    assert.deepEqual(found.one.refused.map(({ name }) => name), ['all/notes.txt', 'all/.cache/x/4.png']);
    assert.equal(found.two.added, 1);
    save('kinds.zip', found.zip);
    const listed = execFileSync('python3', ['-c', `import zipfile; z = zipfile.ZipFile('kinds.zip'); print(chr(10).join(z.namelist())); print(all(z.read(n)[1:4] == b'PNG' for n in z.namelist()))`], { cwd: scratch, encoding: 'utf8' }).trim().split('\n');
    assert.deepEqual(listed, ['Greek_a/1.png', 'Greek_A 2/2.png', 'Latin_a/3.png', `Latin_a/${'l'.repeat(100)}.png`, '_.hidden/icon.png', 'True']);
    native('embed', 'shipped:pictures', 'kinds.zip', '--out', 'kinds.csv');
    assert.equal(rows(fs.readFileSync(path.join(scratch, 'kinds.csv'), 'utf8')).size, 5);
  },

  async 'pictures added while a run ends have rows of the network in use'() {
    const page = await fresh();
    const found = await page.evaluate(async () => {
      await call('open');
      await call('addPictures', { items: await items([0, 1, 2], 12) });
      await call('train', { from: 'shipped', steps: 6, seed: 1 });
      let n = 0;
      // The same picture again and again, before, while and after the network changes.
      for (; !events.some((one) => one.event === 'network' && one.network === 'trained'); n += 1) {
        await call('addPictures', { items: [{ file: await draw(0, 0), name: `again/${n}.png`, class: 'again' }] });
      }
      const asking = [];
      for (let i = 0; i < 4; i += 1) asking.push(call('ask', { file: await draw(1, 3) }));
      const answers = await Promise.all(asking);
      await call('useNetwork', { name: 'trained' });
      return { n, csv: await (await call('exportRows')).file.text(), answers, broken: events.some((one) => one.event === 'broken'), trouble: events.filter((one) => one.event === 'trouble') };
    });
    const all = rows(found.csv);
    assert.equal(all.size, 36 + found.n);
    const first = all.get('kind 0/0.png');
    // Of one picture and of many are other passes, of which the last bits may differ.
    for (const [name, row] of all) {
      if (!name.startsWith('again/')) continue;
      const scale = Math.max(...first.map(Math.abs));
      assert.ok(row.every((x, i) => Math.abs(x - first[i]) < 1e-4 * scale), `${name} has a row of another network`);
    }
    assert.ok(found.answers.every((answer) => answer.ready));
    assert.deepEqual([found.broken, found.trouble], [false, []]);
    console.log(`  ${found.n} pictures were added meanwhile`);
  },

  async 'a run is paused, continued and dropped at once, and a pause outlives a lost device'() {
    const page = await fresh();
    const found = await page.evaluate(async () => {
      await call('open');
      await call('addPictures', { items: await items([0, 1], 8) });
      await call('train', { from: 'shipped', steps: 500, seed: 1 });
      await Promise.all([call('pause'), call('resume'), call('pause'), call('resume'), call('pause')]);
      const paused = lastRun();
      await call('release');
      await call('ask', { file: await draw(1, 3) }).catch(() => {});
      await until(() => events.some((one) => one.event === 'reopened'), 60);
      await new Promise((resolve) => setTimeout(resolve, 3000));
      const still = lastRun();
      const answer = await call('ask', { file: await draw(1, 3) });
      await Promise.all([call('resume'), call('dropRun')]);
      const { run } = events.findLast((one) => one.event === 'run');
      const gone = await call('resume').catch((error) => error.message);
      return { paused: paused.state, still: still.state, ready: answer.ready, run, gone };
    });
    assert.deepEqual([found.paused, found.still, found.ready, found.run], ['paused', 'paused', true, null]);
    assert.match(found.gone, /no run/);
  },

  async 'what cannot be read or kept is said, and nothing else is lost'() {
    let page = await fresh();
    const before = await page.evaluate(async () => {
      const root = await navigator.storage.getDirectory();
      await (await (await root.getFileHandle('of another page', { create: true })).createWritable()).close();
      await call('open');
      await call('addPictures', { items: await items([0, 1], 6) });
      const { file } = await call('exportCheckpoint');
      const { network } = await call('importCheckpoint', { file: new File([file], 'mine.safetensors') });
      const sentence = await call('importCheckpoint', { file: new File(['no network'], 'mine.safetensors') }).catch((error) => error.message);
      await call('save');
      return { network, sentence };
    });
    assert.equal(before.network.name, 'imported');
    assert.match(before.sentence, /mine\.safetensors/);
    await page.close();
    // A file of the network is damaged.
    page = await open();
    const opened = await page.evaluate(async () => {
      const root = await navigator.storage.getDirectory();
      for await (const [name, home] of root) {
        if (!name.startsWith('ieq-wgpu')) continue;
        for await (const [inner, handle] of home) {
          if (!inner.startsWith('network-')) continue;
          const out = await handle.createWritable();
          await out.write('damaged');
          await out.close();
        }
      }
      const state = await call('open');
      const answer = await call('ask', { file: await draw(1, 9) });
      return { state, answer, trouble: events.filter((one) => one.event === 'trouble').map((one) => one.message) };
    });
    assert.equal(opened.state.network, 'shipped');
    assert.match(opened.trouble.join(), /missing or damaged .* shipped network is in use/);
    assert.ok(opened.answer.ready);
    // The disk is full: Firefox cannot be told so.
    if (isFirefox) return;
    const devtools = await context.newCDPSession(page);
    const usage = await page.evaluate(async () => (await navigator.storage.estimate()).usage);
    await devtools.send('Storage.overrideQuotaForOrigin', { origin: server.url, quotaSize: usage + 16_000_000 });
    const full = await page.evaluate(async () => {
      // What stands behind a picture in its file is nobody's.
      const large = async (kind, i) => {
        const file = new Blob([await draw(kind, i), crypto.getRandomValues(new Uint8Array(65536)), new Uint8Array(500_000)]);
        return { file, name: `${i}.png`, class: `kind ${kind}` };
      };
      let sentence = null;
      for (let i = 0; i < 100 && !sentence; i += 1) {
        await call('addPictures', { items: [await large(2, i)] }).catch((error) => { sentence = error.message; });
      }
      const last = () => events.findLast((one) => one.event === 'project').project;
      const { classes, pictures } = last();
      // It leaves nothing behind that would keep the disk full.
      const exported = await call('exportProject').catch((error) => error.message);
      await call('deletePictures', { ids: classes.at(-1).pictures });
      const { added } = await call('addPictures', { items: [await large(3, 0), await large(3, 1), await large(3, 2)] });
      await call('save');
      return { sentence, exported, pictures, added, after: last().pictures };
    });
    console.log(`  full after ${full.pictures} pictures; ${full.added} more after deleting`);
    assert.match(full.sentence, /^full: There is no room left/);
    assert.match(full.exported, /^full: There is no room left/);
    assert.equal(full.added, 3);
    await devtools.send('Storage.overrideQuotaForOrigin', { origin: server.url });
    await page.close();
    page = await open();
    const again = await page.evaluate(async () => {
      const { project } = await call('open');
      await call('eraseAll');
      await call('save');
      const left = [];
      for await (const [name, handle] of await navigator.storage.getDirectory()) {
        left.push(name);
        if (handle.kind === 'directory') for await (const inner of handle.keys()) left.push(inner);
      }
      return { pictures: project.pictures, left };
    });
    assert.equal(again.pictures, full.after);
    assert.equal(again.left.length, 2, `only the other page's file and an empty folder: ${again.left}`);
  },

  async 'an engine that stops fails every call'() {
    const page = await fresh();
    await page.evaluate(async () => {
      await call('open');
      window.under = call('check').catch((error) => error.message);
    });
    // Playwright runs nothing in a worker of Firefox.
    if (isFirefox) return;
    await page.workers()[0].evaluate(() => void Promise.reject(new WebAssembly.RuntimeError('unreachable')));
    const sentences = await page.evaluate(async () => {
      await until(() => events.some((one) => one.event === 'broken'), 10);
      return [await window.under, await call('ask', { file: await draw(1, 1) }).catch((error) => error.message)];
    });
    for (const sentence of sentences) assert.match(sentence, /The engine stopped/);
  },

  async 'every kernel against its twin'() {
    const page = await fresh();
    const found = await page.evaluate(async () => {
      await call('open');
      return call('check');
    });
    console.log(`  ${found.passed} cases in ${found.seconds.toFixed(0)} s`);
    assert.deepEqual(found.failed, []);
    assert.ok(found.passed > 100);
  },

  async 'kernels are measured'() {
    const page = await fresh();
    const found = await page.evaluate(async () => {
      await call('open');
      return call('bench');
    });
    assert.ok(found.kernels.length > 10 && found.kernels.every((kernel) => kernel.check.passed || !kernel.check.made));
    console.log(`  ${found.kernels.length} kernels; a step of ${found.steps[0].rows} rows in ${(1e3 * found.steps[0].seconds.median).toFixed(0)} ms`);
  },
};

let failed = 0;
for (const [name, test] of Object.entries(tests).filter(([name]) => name.includes(only))) {
  const begun = Date.now();
  try {
    await test();
    console.log(`ok ${name} (${((Date.now() - begun) / 1e3).toFixed(0)} s)`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED ${name}\n${error.stack}`);
  }
}
await context?.close();
server.close();
fs.rmSync(scratch, { recursive: true, force: true });
process.exit(failed ? 1 : 0);

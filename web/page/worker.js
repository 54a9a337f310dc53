// The worker of the page: it has the engine, the files and the pictures, and does what PROTOCOL.md lists.

import init, * as wasm from './engine/ieq_wgpu_page.js';
import { Fault, described } from './worker/fault.js';
import { Document, removeFile, root } from './worker/files.js';
import { Answers, joined } from './worker/answers.js';
import { decode } from './worker/decode.js';
import { Embedding, TITLES, keepNetwork, networkBytes } from './worker/networks.js';
import { Project } from './worker/project.js';
import { Training } from './worker/training.js';
import { exportTable, exportZip, zipItems } from './worker/transfer.js';

/** Share of the pictures of known classes that may be called none of these, unless the user says otherwise. */
const UNKNOWN = 0.05;
/** Milliseconds between reports of progress. */
const TELL_EVERY = 150;
/** Milliseconds in which a device that refuses something says why. */
const LAST_WORDS = 200;
const CHECKPOINT_NAME = 'network.safetensors';

let folder;
let project;
let training;
let engine = null;
let why = null;
/** What the browser says of its device, which is often little. */
let adapter = {};
let embedding = null;
/** What is kept beside the project: {network, unknown, networks: [shown]}. */
let settings = { network: 'shipped', unknown: UNKNOWN, networks: [] };
let settingsFile;
let asked = null;
/** What answers rest on, made anew after a change. */
let learned = null;
let changes = 0;
const cancelled = new Set();

const tell = (event, fields = {}) => postMessage({ event, ...fields });

/** A change of the project that the page does not know of yet: told before the answer of the call that made it. */
let untold = null;
function tellProject() {
  clearTimeout(untold);
  untold = null;
  tell('project', { project: project.shown() });
}

/** Whether to go on with `what`; tells how far it is now and then. */
function progress(what, total) {
  let last = 0;
  cancelled.delete(what);
  return (done) => {
    const now = performance.now();
    if (now - last > TELL_EVERY || done === total) {
      last = now;
      tell('progress', { what, done, total });
    }
    return !cancelled.has(what);
  };
}

/** Work on pictures and networks goes one after the other, so that none sees half of another's. */
let queue = Promise.resolve();
function inTurn(work) {
  const next = queue.catch(() => {}).then(work);
  queue = next;
  return next;
}

function needEngine() {
  if (!engine) throw new Fault('device', `This needs WebGPU: ${why ?? 'there is no device'}`);
}

async function openEngine() {
  engine = null;
  why = null;
  if (!self.navigator.gpu) {
    why = 'this browser has no WebGPU, or it is switched off.';
    return;
  }
  try {
    const { vendor = '', architecture = '', device = '', description = '' } = (await navigator.gpu.requestAdapter())?.info ?? {};
    adapter = { vendor, architecture, device, description };
    engine = await wasm.Engine.open(vendor);
  } catch (error) {
    why = described(error).message;
  }
}

async function saveSettings() {
  await settingsFile.write(settings);
}

/** Uses a network from now on; pictures are embedded by it where they are not yet. */
async function use(name, bytes = null) {
  bytes ??= await networkBytes(folder, name);
  if (!bytes) throw new Fault('usage', `There is no ${TITLES[name] ?? name}.`);
  embedding = await Embedding.open(engine, wasm, folder, name, bytes, { before: embedding, known: settings.networks });
  forget();
  settings.network = name;
  settings.networks = [...settings.networks.filter((one) => one.name !== name), embedding.shown()];
  await saveSettings();
  tell('network', { network: name, networks: settings.networks });
  await embedMissing();
}

/** Embeds the pictures that the network has not seen. */
async function embedMissing() {
  const missing = project.list().map(({ id }) => id).filter((id) => !embedding.has(id));
  const on = progress('embedding', missing.length);
  for (let at = 0; at < missing.length; at += embedding.batch) {
    const ids = missing.slice(at, at + embedding.batch);
    const squares = [];
    for (const id of ids) squares.push([id, await project.pixels(id, embedding.side).catch(() => null)]);
    await embedSquares(squares.filter(([, pixels]) => pixels));
    if (!on(Math.min(at + ids.length, missing.length))) break;
  }
  forget();
}

/** Keeps the rows of [id, pixels] pairs. */
async function embedSquares(squares) {
  if (!squares.length) return;
  const rows = await embedding.embed(joined(squares.map(([, pixels]) => pixels)));
  squares.forEach(([id], i) => embedding.keep(id, rows.slice(i * embedding.width, (i + 1) * embedding.width)));
}

/** What answers rest on. */
async function answers() {
  if (learned) return learned;
  const before = changes;
  const found = await Answers.of(wasm, project, embedding);
  // Of pictures that have changed meanwhile it answers this once.
  if (before === changes) learned = found;
  return found;
}

/** Answers rest on something else from now on. */
function forget() {
  learned?.free();
  learned = null;
  changes += 1;
}

/** Adds items {file, name, class}; classes of null are the first folder of their name. */
async function addPictures(items) {
  const on = progress('adding', items.length);
  const refused = [];
  let added = 0;
  let waiting = [];
  let done = 0;
  const embedNow = async () => {
    const ids = waiting;
    waiting = [];
    if (!engine || !embedding || !ids.length) return;
    const squares = [];
    for (const id of ids) squares.push([id, await project.pixels(id, embedding.side)]);
    await embedSquares(squares);
    forget();
  };
  for (const item of items) {
    try {
      const { file, name, class: which } = typeof item.read === 'function' ? await item.read() : item;
      const parts = String(name ?? file.name ?? 'picture').split('/').filter(Boolean);
      const target = which ?? (parts.length > 1 ? parts.at(-2) : null);
      if (target === null) throw new Fault('data', `${name} lies in no class: add it to a class, or give a folder for each class`);
      const id = await project.add(file, parts.at(-1), target, embedding?.side ?? null);
      waiting.push(id);
      added += 1;
      project.touch();
    } catch (error) {
      const { message, kind } = described(error);
      if (kind === 'full') {
        await embedNow().catch(() => {});
        await project.save();
        throw error;
      }
      refused.push({ name: item.name ?? '', why: message });
    }
    if (waiting.length >= (embedding?.batch ?? 64)) await embedNow();
    done += 1;
    if (!on(done)) break;
  }
  await embedNow();
  project.flush();
  await project.save();
  forget();
  return { added, refused };
}

/** Pictures of the whole project for a run at a side. */
async function runPictures(side) {
  const list = project.list();
  const classes = project.classes.filter((one) => one.pictures.length);
  const label = new Map(classes.map((one, i) => [one.id, i]));
  const size = 4 * side * side;
  const pixels = new Uint8Array(size * list.length);
  const on = progress('preparing', list.length);
  let n = 0;
  for (const { id } of list) {
    pixels.set(await project.pixels(id, side), n * size);
    n += 1;
    on(n);
  }
  return {
    pixels, side, original: project.middleSide(), labels: list.map((picture) => label.get(picture.class)),
    classes: classes.map((one) => one.name),
  };
}

/** The network that a run starts from: {network, side, free}. */
async function startingNetwork(from) {
  if (from === 'scratch') return null;
  const name = from === 'current' ? settings.network : from;
  const bytes = await networkBytes(folder, name);
  if (!bytes) throw new Fault('usage', `There is no ${TITLES[name] ?? name} to start from.`);
  return wasm.Network.open(engine, name === 'shipped' ? 'shipped:pictures' : `${name}.safetensors`, bytes);
}

async function planned(from, steps, seed) {
  needEngine();
  const network = await startingNetwork(from);
  const side = network ? JSON.parse(network.about()).side : wasm.side_for(project.middleSide(), engine.software());
  if (project.classes.filter((one) => one.pictures.length).length < 2) {
    throw new Fault('usage', 'Training tells classes apart: give two classes with pictures, or more.');
  }
  const pictures = await runPictures(side);
  const set = new wasm.Pictures(side, pictures.pixels, Uint32Array.from(pictures.labels), pictures.classes, pictures.original);
  try {
    const name = from === 'scratch' ? '' : from === 'shipped' ? 'shipped:pictures' : `${settings.network}.safetensors`;
    // The function takes the network and frees it.
    const plan = JSON.parse(wasm.plan_run(set, network ?? undefined, name, steps ?? 0, seed ?? 0, engine.software()));
    return { plan, pictures };
  } finally {
    set.free();
  }
}

/** Two pages would write the same files: the second one is refused. The lock is held until the page is closed. */
function alone() {
  return new Promise((resolve, reject) => {
    navigator.locks.request('ieq-wgpu', { ifAvailable: true }, (lock) => {
      if (lock) {
        resolve();
        return new Promise(() => {});
      }
      reject(new Fault('storage', 'This page is open in another tab, and both would write the same files. Close one of them, then load this one again.'));
      return undefined;
    });
  });
}

const calls = {
  async open() {
    await alone();
    await init();
    folder = await root();
    settingsFile = new Document(folder, 'settings');
    settings = { ...settings, ...(await settingsFile.read()) };
    project = await Project.open(folder, {
      changed: () => {
        forget();
        untold ??= setTimeout(tellProject, TELL_EVERY);
      },
      square: (rgba, width, height, side) => wasm.square(rgba, width, height, side),
    });
    training = await Training.open(folder, wasm, {
      get folder() {
        return folder;
      },
      run: () => tell('run', { run: training.shown() }),
      step: (point) => tell('step', { run: training.shown(), point }),
      lost: (message) => deviceLost(message),
      known,
      startingNetwork,
      trained: (bytes) => use('trained', bytes),
    });
    await openEngine();
    if (engine) await inTurn(openNetwork);
    return opened();
  },

  async reopen() {
    training.lose();
    await openEngine();
    if (engine) await inTurn(openNetwork);
    return opened();
  },

  addClass: ({ name }) => ({ id: project.addClass(name) }),
  renameClass({ id, name }) {
    project.renameClass(id, name);
    return {};
  },
  deleteClass({ id }) {
    project.deleteClass(id);
    return {};
  },
  addPictures: ({ items }) => inTurn(() => addPictures(items)),
  deletePictures({ ids }) {
    project.deletePictures(ids);
    return {};
  },
  movePictures({ ids, class: to }) {
    project.movePictures(ids, to);
    return {};
  },
  async undo() {
    const what = project.undo();
    if (what && engine && embedding) await inTurn(embedMissing);
    return { what };
  },
  thumbnail: ({ id }) => project.thumbnail(id),

  ask: ({ file }) => inTurn(async () => {
    needEngine();
    const bitmap = await decode(file, file.name ?? 'this');
    let pixels;
    try {
      pixels = project.squared(bitmap, embedding.side);
    } finally {
      bitmap.close();
    }
    const row = await embedding.embed(pixels);
    asked = { file, row };
    return (await answers()).answer(row, settings.unknown);
  }),

  correct: ({ class: which }) => inTurn(async () => {
    if (!asked) throw new Fault('usage', 'There is no picture to correct: ask about one first.');
    const { file } = asked;
    asked = null;
    const { added, refused } = await addPictures([{ file, name: file.name ?? 'asked.png', class: which }]);
    if (!added) throw new Fault('data', refused[0]?.why ?? 'The picture could not be added.');
    return { id: project.classFor(which).pictures.at(-1) };
  }),

  async setUnknown({ rate }) {
    if (!(rate >= 0 && rate <= 0.5)) throw new Fault('usage', 'The share lies between 0 and 0.5.');
    settings.unknown = rate;
    await saveSettings();
    return {};
  },

  useNetwork: ({ name }) => inTurn(async () => {
    needEngine();
    await use(name);
    return {};
  }),

  suggestRun: ({ from }) => inTurn(async () => {
    try {
      const { plan } = await planned(from, 0, 0);
      const { settings, steps, rows, classes, images } = plan;
      return { settings, steps, rows, classes, images, refused: null };
    } catch (error) {
      const { message, kind } = described(error);
      if (kind !== 'usage') throw error;
      return { settings: [], steps: 0, rows: 0, classes: 0, images: 0, refused: message };
    }
  }),

  train: ({ from, steps, seed }) => inTurn(async () => {
    if (training.active) throw new Fault('usage', 'A run is at work already: pause it first.');
    const { plan, pictures } = await planned(from, steps, seed);
    const network = await startingNetwork(from);
    await training.begin(engine, { from, plan, pictures, network });
    return {};
  }),
  async pause() {
    await training.pause();
    return {};
  },
  async resume() {
    needEngine();
    await training.resume(engine);
    return {};
  },
  async dropRun() {
    await training.drop();
    tell('run', { run: null });
    return {};
  },

  map: () => inTurn(async () => {
    needEngine();
    return (await answers()).map();
  }),

  neighbours: ({ id }) => inTurn(async () => {
    needEngine();
    const row = embedding.row(id);
    return { neighbours: row ? (await answers()).nearest(row, id) : [] };
  }),

  confusions: () => inTurn(async () => {
    needEngine();
    return (await answers()).confusions(settings.unknown);
  }),

  async check() {
    needEngine();
    const n = wasm.check_cases();
    const on = progress('check', n);
    const failed = [];
    const begun = performance.now();
    let passed = 0;
    for (let i = 0; i < n; i += 1) {
      const outcome = JSON.parse(await wasm.check_case(engine, i));
      if (outcome.passed) passed += 1;
      else failed.push(outcome);
      if (!on(i + 1)) break;
    }
    return { passed, failed, seconds: (performance.now() - begun) / 1e3 };
  },

  async bench() {
    needEngine();
    let on = null;
    let known = 0;
    const watcher = {
      advance(done, total) {
        if (total !== known) [on, known] = [progress('bench', total), total];
        on(done);
      },
      stop: () => cancelled.has('bench'),
    };
    cancelled.delete('bench');
    return JSON.parse(await wasm.bench(engine, watcher));
  },

  cancel({ what }) {
    cancelled.add(what);
    return {};
  },

  exportProject: () => inTurn(() => exportZip(wasm, folder, project, progress('exporting', project.count()))),

  importProject: ({ file }) => inTurn(async () => {
    const { items, free } = zipItems(wasm, file);
    try {
      return await addPictures(items);
    } finally {
      free();
    }
  }),

  async exportCheckpoint() {
    const bytes = await networkBytes(folder, settings.network);
    if (!bytes) throw new Fault('usage', 'There is no network to export.');
    return { file: new Blob([bytes], { type: 'application/octet-stream' }), name: CHECKPOINT_NAME };
  },

  async exportRun() {
    const file = await training.lastCheckpoint();
    if (!file) throw new Fault('usage', 'There is no checkpoint of a run yet.');
    return { file, name: 'checkpoint.safetensors' };
  },

  exportRows: () => inTurn(async () => {
    needEngine();
    return exportTable(project, embedding);
  }),

  importCheckpoint: ({ file }) => inTurn(async () => {
    needEngine();
    const bytes = new Uint8Array(await file.arrayBuffer());
    // It is opened before it is kept.
    await use('imported', bytes);
    await keepNetwork(folder, 'imported', bytes);
    return { network: embedding.shown() };
  }),

  eraseAll: () => inTurn(async () => {
    await training.drop();
    await project.erase();
    embedding?.close();
    embedding = null;
    await settingsFile.remove();
    for await (const name of folder.keys()) await removeFile(folder, name);
    return {};
  }),

  /** Gives the device back, as a browser does that takes it away: to try what follows. */
  async release() {
    needEngine();
    engine.lose();
    return {};
  },

  /** Writes what has changed now: the page may be closed. */
  async save() {
    await project.save();
    return {};
  },

  async persist() {
    return { persisted: (await navigator.storage.persist?.()) ?? false };
  },
};

/** Opens the network that was in use, or where it cannot be opened the shipped one. */
async function openNetwork() {
  try {
    await use(settings.network);
  } catch (error) {
    if (settings.network === 'shipped' || described(error).kind === 'lost') throw error;
    await use('shipped');
  }
}

function adapterName() {
  const { vendor, architecture, device, description } = adapter;
  return description || [vendor, architecture, device].filter(Boolean).join(' ') || 'a device that the browser does not name';
}

async function opened() {
  const { usage = 0, quota = 0 } = (await navigator.storage.estimate?.()) ?? {};
  const persisted = (await navigator.storage.persisted?.()) ?? false;
  return {
    gpu: engine && { ...JSON.parse(engine.about()), ...adapter, name: adapterName() }, why, networks: settings.networks, network: settings.network, project: project.shown(),
    run: training.shown(), unknown: settings.unknown, storage: { usage, quota, persisted },
  };
}

/** An error for the page. A device that refuses something may say a moment later that it is gone. */
async function known(error) {
  const fault = described(error);
  if (fault.kind !== 'device' || !engine) return fault;
  await new Promise((resolve) => setTimeout(resolve, LAST_WORDS));
  try {
    engine.check();
  } catch (later) {
    return described(later);
  }
  return fault;
}

/** The device is gone: what was on it is made again on another, once by itself. */
let again = false;
async function deviceLost(message) {
  tell('lost', { message });
  if (again) return;
  again = true;
  const wasTraining = training.kept?.state === 'paused';
  try {
    const state = await calls.reopen();
    tell('reopened', { state });
    if (wasTraining && engine) await training.resume(engine);
  } catch {
    // The page offers to try again.
  } finally {
    again = false;
  }
}

onmessage = async ({ data: { id, call, args } }) => {
  try {
    if (!Object.hasOwn(calls, call)) throw new Fault('internal', `The worker knows no call “${call}”.`);
    const result = (await calls[call](args ?? {})) ?? {};
    if (untold) tellProject();
    postMessage({ id, result });
  } catch (error) {
    const fault = await known(error);
    postMessage({ id, error: fault });
    if (fault.kind === 'lost' && call !== 'reopen') deviceLost(fault.message);
  }
};

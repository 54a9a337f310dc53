// The worker of the page: it has the engine, the files and the pictures, and does what PROTOCOL.md lists.

import init, * as wasm from './engine/ieq_wgpu_page.js';
import { answers, forget } from './worker/answers.js';
import { decode } from './worker/decode.js';
import { Device } from './worker/device.js';
import { Fault, described, isStop } from './worker/fault.js';
import { namesIn, removeFile, root } from './worker/files.js';
import { Networks } from './worker/networks.js';
import { addPictures, embedLater, embedMissing, folderClasses, tellLater } from './worker/pictures.js';
import { Project } from './worker/project.js';
import { planned } from './worker/runs.js';
import { state, tell, trouble } from './worker/state.js';
import { Training } from './worker/training.js';
import { clearExports, exportTable, exportZip, zipItems } from './worker/transfer.js';
import { TELL_EVERY, cancel, cancelsOf, inTurn, progress } from './worker/turns.js';

/** Milliseconds that a page which is just being closed may keep its files. */
const CLOSING = 3000;
/** A device that is lost sooner than this after another one is not opened again by itself, milliseconds. */
const CALM = 60_000;
/** Pages of one server in different folders have different files. */
const HOME = `ieq-wgpu ${encodeURIComponent(new URL('.', import.meta.url).pathname)}`;

/** The picture that was asked about last, and its number: {number, file}. */
let asked = null;
/** Why nothing but `open` can be called. */
let unopened = { message: 'The page is not open yet.', kind: 'usage' };

/** A change of the project that the page does not know of yet: told before the answer of the call that made it. */
let untold = null;
function tellProject() {
  clearTimeout(untold);
  untold = null;
  tell('project', { project: state.project.shown() });
}

/** Two pages would write the same files: the second one is refused. The lock is held until the page is closed. */
function alone() {
  return new Promise((resolve, reject) => {
    const held = navigator.locks.request(HOME, { signal: AbortSignal.timeout(CLOSING) }, () => {
      resolve();
      return new Promise(() => {});
    });
    held.catch(() => reject(new Fault('storage', 'This page is open in another tab, and both would write the same files. Close one of them, then load this one again.')));
  });
}

/** Opens what is kept, and the device. */
async function open() {
  if (!self.isSecureContext) {
    throw new Fault('storage', 'A page that comes over plain http is given no files and no WebGPU by browsers. Load it over https, or from localhost.');
  }
  await alone();
  await init();
  state.wasm = wasm;
  state.folder = await root(HOME);
  await clearExports();
  state.device = new Device();
  state.networks = await Networks.open(forget);
  state.project = await Project.open(state.folder, {
    changed: () => {
      forget();
      untold ??= setTimeout(tellProject, TELL_EVERY);
    },
    square: (rgba, width, height, side) => wasm.square(rgba, width, height, side),
    trouble: (error) => trouble(described(error).message),
  });
  state.training = await Training.open(() => inTurn(() => state.networks.use('trained')).then(embedLater).catch(tellLater));
}

/** Opens the device where there is none or it is gone, and the network in use on it. */
async function openDevice() {
  const { device, networks, training } = state;
  const gone = () => !device.engine || device.loss();
  if (gone()) {
    // What is at work on a device that is gone ends before another one takes its place.
    await training.settled();
    await inTurn(async () => {
      if (!gone()) return;
      training.lose();
      networks.close();
      await device.open(wasm);
    });
  }
  await inTurn(async () => {
    if (device.engine && !networks.current) await networks.useChosen();
  }).catch(tellLater);
  embedLater();
  return opened();
}

/** What the page is told once all is open. */
async function opened() {
  const { device, networks, project, training } = state;
  const { usage = 0, quota = 0 } = (await navigator.storage.estimate?.()) ?? {};
  const persisted = (await navigator.storage.persisted?.()) ?? false;
  return {
    gpu: device.shown(), why: device.why ?? networks.why, ...networks.shown(), project: project.shown(), run: training.shown(), unknown: networks.unknown,
    storage: { usage, quota, persisted },
  };
}

/** The device is gone: what was on it is made again on another, by itself where that has not just happened. */
let reopening = false;
let reopened = -CALM;
state.lost = async (message) => {
  if (reopening) return;
  // The device of work that ends late may have been replaced.
  if (!state.device.loss()) {
    await goOn();
    return;
  }
  tell('lost', { message });
  if (performance.now() - reopened < CALM) return;
  reopening = true;
  try {
    tell('reopened', { state: await openDevice() });
    reopened = performance.now();
  } catch (error) {
    trouble(described(error).message);
  } finally {
    reopening = false;
  }
  await goOn();
};

/** Goes on with a run that a lost device has ended. */
async function goOn() {
  await state.training.settled();
  if (state.training.interrupted && state.device.engine) await resume().catch(tellLater);
}

function resume() {
  const { pauses } = state.training;
  return inTurn(() => {
    idle();
    return state.training.resume(pauses);
  });
}

/** What measures or checks the device does so alone. */
let busy = false;
function idle() {
  if (busy) throw new Fault('usage', 'The device is being checked or measured: wait for that, or cancel it.');
}
async function measured(work) {
  const engine = state.device.need();
  idle();
  if (state.training.active) throw new Fault('usage', 'A run is using the device: pause it first.');
  busy = true;
  try {
    return await work(engine);
  } finally {
    busy = false;
  }
}

const calls = {
  async open() {
    try {
      await open();
      unopened = null;
    } catch (error) {
      unopened = described(error);
      throw error;
    }
    return openDevice();
  },
  async reopen() {
    const found = await openDevice();
    goOn();
    return found;
  },

  addClass: ({ name }) => ({ id: state.project.addClass(name) }),
  renameClass: ({ id, name }) => state.project.renameClass(id, name),
  deleteClass: ({ id }) => state.project.deleteClass(id),
  folderClasses: ({ names }) => ({ classes: folderClasses(names) }),
  addPictures({ items }) {
    const since = cancelsOf('adding');
    return inTurn(() => addPictures(items, since));
  },
  deletePictures: ({ ids }) => state.project.deletePictures(ids),
  movePictures: ({ ids, class: to }) => state.project.movePictures(ids, to),
  undo() {
    const what = state.project.undo();
    // A network that was not in use meanwhile has not seen them.
    if (what) embedLater();
    return { what };
  },
  thumbnail: ({ id }) => state.project.thumbnail(id),

  ask: ({ file }) => inTurn(async () => {
    const embedding = state.networks.need();
    const bitmap = await decode(file, file.name ?? 'this');
    let pixels;
    try {
      pixels = state.project.squared(bitmap, embedding.side);
    } finally {
      bitmap.close();
    }
    const row = await embedding.embed(pixels);
    const answer = (await answers()).answer(row, state.networks.unknown);
    asked = { number: (asked?.number ?? 0) + 1, file };
    return { ...answer, number: asked.number };
  }),

  correct: ({ class: which, number = asked?.number }) => inTurn(async () => {
    if (!asked?.file || number !== asked.number) throw new Fault('usage', 'There is no picture to correct: ask about one first.');
    const { file } = asked;
    const { added, refused } = await addPictures([{ file, name: file.name ?? 'asked.png', class: which }]);
    if (!added) throw new Fault('data', refused[0]?.why ?? 'The picture could not be added.');
    asked.file = null;
    return { id: state.project.classFor(which).pictures.at(-1) };
  }),

  setUnknown({ rate }) {
    if (!(rate >= 0 && rate <= 0.5)) throw new Fault('usage', 'The share lies between 0 and 0.5.');
    return state.networks.setUnknown(rate);
  },

  async useNetwork({ name }) {
    const since = cancelsOf('embedding');
    await inTurn(() => state.networks.use(name));
    await embedMissing(since);
  },

  suggestRun: ({ from }) => inTurn(async () => {
    try {
      const { plan, pictures, start } = await planned(from, 0, 0);
      pictures.set.free();
      start?.network.free();
      const { settings, steps, rows, classes, images } = plan;
      return { settings, steps, rows, classes, images, refused: null };
    } catch (error) {
      const { message, kind } = described(error);
      if (kind !== 'usage') throw error;
      return { settings: [], steps: 0, rows: 0, classes: 0, images: 0, refused: message };
    }
  }),

  train: ({ from, steps, seed }) => inTurn(async () => {
    idle();
    await state.training.begin(from, await planned(from, steps, seed));
  }),
  pause: () => state.training.pause(),
  resume,
  dropRun: () => state.training.drop(),

  map: () => inTurn(async () => (await answers()).map()),

  neighbours: ({ id }) => inTurn(async () => {
    const row = state.networks.need().row(id);
    return { neighbours: row ? (await answers()).nearest(row, id) : [] };
  }),

  async confusions() {
    const found = await (await inTurn(answers)).confusions(state.networks.unknown);
    return found ?? { classes: [], counts: [], none: [], right: 0, total: 0 };
  },

  check: () => measured(async (engine) => {
    const cases = wasm.check_cases();
    const on = progress('check', cases);
    const failed = [];
    const begun = performance.now();
    let passed = 0;
    for (let i = 0; i < cases; i += 1) {
      const outcome = JSON.parse(await wasm.check_case(engine, i));
      if (outcome.passed) passed += 1;
      else failed.push(outcome);
      if (!on(i + 1)) break;
    }
    return { cases, passed, failed, seconds: (performance.now() - begun) / 1e3 };
  }),

  bench: () => measured(async (engine) => {
    const on = progress('bench', 0);
    let going = true;
    const watcher = {
      advance: (done, total) => {
        going = on(done, total);
      },
      stop: () => !going,
    };
    return JSON.parse(await wasm.bench(engine, watcher));
  }),

  cancel: ({ what }) => void cancel(what),

  exportProject() {
    const since = cancelsOf('exporting');
    return inTurn(async () => {
      const found = await exportZip(since);
      if (!found) throw new Fault('usage', 'The export was cancelled.');
      return found;
    });
  },

  importProject({ file }) {
    const since = cancelsOf('adding');
    return inTurn(async () => {
      const { items, free } = zipItems(file);
      const found = await addPictures(items, since);
      free();
      return found;
    });
  },

  exportCheckpoint: () => inTurn(async () => {
    const { bytes } = await state.networks.read(state.networks.current?.name ?? 'shipped');
    return { file: new Blob([bytes], { type: 'application/octet-stream' }), name: 'network.safetensors' };
  }),

  async exportRun() {
    const bytes = await state.training.lastCheckpoint();
    if (!bytes) throw new Fault('usage', 'There is no checkpoint of a run yet.');
    return { file: new Blob([bytes], { type: 'application/octet-stream' }), name: 'checkpoint.safetensors' };
  },

  exportRows: () => inTurn(() => exportTable()),

  async importCheckpoint({ file }) {
    const network = await inTurn(() => state.networks.take(file));
    await embedMissing();
    return { network };
  },

  eraseAll: () => inTurn(async () => {
    await state.training.drop();
    await state.project.erase();
    await state.networks.erase();
    for (const name of await namesIn(state.folder)) await removeFile(state.folder, name);
  }),

  /** Gives the device back, as a browser does that takes it away: to try what follows. */
  release: () => state.device.need().lose(),

  /** Writes what has changed now: the page may be closed. */
  save: () => state.project.save(),

  /** The same, and ends the worker: a page that the browser keeps aside would keep others of it from its files. */
  async leave() {
    await state.project.save().catch(() => {});
    self.close();
  },
};

/** Calls without an answer yet. */
const waiting = new Set();
/** Why the module of the engine works no more: it stopped in the middle of something, and nothing of it can be trusted. */
let broken = null;

function stopped(error) {
  broken ??= described(error);
  for (const id of waiting) postMessage({ id, error: broken });
  waiting.clear();
  tell('broken', { message: broken.message });
}

// A task of the engine that nobody waits for directly stops here.
self.addEventListener('unhandledrejection', (event) => {
  if (isStop(event.reason)) stopped(event.reason);
});
self.addEventListener('error', (event) => {
  if (isStop(event.error)) stopped(event.error);
});

onmessage = async ({ data: { id, call, args } }) => {
  waiting.add(id);
  const answer = (message) => waiting.delete(id) && postMessage({ id, ...message });
  try {
    if (broken) return answer({ error: broken });
    if (unopened && call !== 'open') return answer({ error: unopened });
    if (!Object.hasOwn(calls, call)) throw new Fault('internal', `The worker knows no call “${call}”.`);
    const result = (await calls[call](args ?? {})) ?? {};
    if (untold) tellProject();
    return answer({ result });
  } catch (error) {
    if (isStop(error)) return stopped(error);
    const fault = state.device ? await state.device.known(error) : described(error);
    if (untold) tellProject();
    answer({ error: fault });
    return fault.kind === 'lost' && state.lost(fault.message);
  }
};
tell('listening');

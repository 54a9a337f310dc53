// A worker that answers as PROTOCOL.md says, with invented data: to draw and test the page without engine and GPU.
// The server of the tests puts `self.MOCK = {...}` before it: {gpu, software, classes, pictures, slow}.

const MOCK = { gpu: true, classes: 0, pictures: 0, ...self.MOCK };
const project = { classes: [] };
const home = new Map();
const undos = [];
let next = 1;
let network = 'shipped';
let unknown = 0.05;
let run = null;
let timer = null;
let asked = false;
const cancelled = new Set();
const counts = {};
const networks = [{ name: 'shipped', title: 'the shipped network', side: 28, width: 640, bytes: 1017896, trained: true }];

for (let i = 0; i < MOCK.classes; i += 1) {
  const one = { id: next++, name: ['Cups', 'Keys', 'Leaves', 'Shells', 'Stones', 'Spoons'][i] ?? `Class ${i + 1}`, pictures: [] };
  project.classes.push(one);
  for (let j = 0; j < Math.ceil(MOCK.pictures / MOCK.classes); j += 1) one.pictures.push(next++);
}
for (const one of project.classes) for (const id of one.pictures) home.set(id, one.id);

const tell = (event, fields = {}) => postMessage({ event, ...fields });
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const shown = () => ({ classes: project.classes.map((one) => ({ ...one, pictures: [...one.pictures] })), pictures: project.classes.reduce((n, one) => n + one.pictures.length, 0), undo: undos.at(-1)?.what ?? null });
const changed = () => tell('project', { project: shown() });
class Fault extends Error { constructor(kind, message) { super(message); this.kind = kind; } }

function find(which) {
  if (typeof which === 'number') return project.classes.find((one) => one.id === which);
  let one = project.classes.find(({ name }) => name === which);
  if (!one) project.classes.push((one = { id: next++, name: which, pictures: [] }));
  return one;
}
function note(what) {
  const before = structuredClone(project.classes);
  undos.push({ what, back: () => { project.classes = before; } });
}
const gpu = () => (MOCK.gpu ? {
  name: 'Mock adapter', vendor: 'mock', architecture: 'random', description: '', software: MOCK.software ?? false, backend: 'WebGPU', features: ['timestamp-query', 'shader-f16'],
  limits: { maxBufferSize: 268435456, maxStorageBufferBindingSize: 134217728, maxComputeInvocationsPerWorkgroup: 256 },
} : null);
const opened = () => ({ gpu: gpu(), why: MOCK.gpu ? null : 'this browser has no WebGPU, or it is switched off.', networks, network, project: shown(), run, unknown, storage: { usage: 12e6, quota: 2e9, persisted: false } });
const settings = [{ key: 'run.steps', value: '300', why: 'enough for the loss to settle on so many pictures' }, { key: 'optimiser.batch', value: '16', why: 'two pictures of each of 8 classes' }, { key: 'validation', value: '', why: 'one class in five is held out' }];
const similar = (n) => [...home.keys()].slice(0, n).map((id, i) => ({ id, class: home.get(id), similarity: 0.95 - i * 0.03 }));
async function going(what, total, each) {
  cancelled.delete(what);
  for (let i = 1; i <= total; i += 1) {
    await wait(each);
    tell('progress', { what, done: i, total });
    if (cancelled.has(what)) break;
  }
}
function train() {
  run.state = 'training';
  timer = setInterval(() => {
    for (let i = 0; i < 5 && run.step < run.steps; i += 1) {
      run.step += 1;
      const t = run.step / run.steps;
      const point = { step: run.step, loss: 3 * Math.exp(-4 * t) + 0.4 + 0.15 * Math.random(), losses: { ce: 1 }, accuracy: Math.min(1, 0.2 + 0.75 * Math.sqrt(t) + 0.06 * Math.random() - 0.03), validation: run.step % 25 ? null : 0.3 + 0.55 * Math.sqrt(t) };
      run.points.push(point);
      Object.assign(run, { loss: point.loss, accuracy: point.accuracy, imagesPerSecond: 137.4, secondsLeft: (run.steps - run.step) / 25 });
    }
    if (run.step % 50 === 0) run.savedStep = run.step;
    if (run.step >= run.steps) {
      clearInterval(timer);
      Object.assign(run, { state: 'done', savedStep: run.steps });
      if (networks.length < 2) networks.push({ name: 'trained', title: 'the trained network', side: 28, width: 640, bytes: 1017896, trained: true });
      network = 'trained';
      tell('network', { network, networks });
      tell('run', { run });
    } else {
      tell('step', { run, point: run.points.at(-1) });
    }
  }, 200);
  tell('run', { run });
}

const calls = {
  async open() { await wait(MOCK.slow ?? 20); return opened(); },
  reopen: () => opened(),
  addClass({ name }) {
    if (!name.trim()) throw new Fault('usage', 'A class needs a name.');
    if (project.classes.some((one) => one.name === name)) throw new Fault('usage', `There is a class “${name}” already.`);
    const { id } = find(name);
    changed();
    return { id };
  },
  renameClass({ id, name }) {
    if (!name.trim()) throw new Fault('usage', 'A class needs a name.');
    find(id).name = name;
    changed();
  },
  deleteClass({ id }) { note(`deleting “${find(id).name}”`); project.classes = project.classes.filter((one) => one.id !== id); changed(); },
  folderClasses: ({ names }) => ({ classes: names.map((name) => name.split('/').at(-2) ?? null) }),
  async addPictures({ items }) {
    const refused = [];
    let added = 0;
    cancelled.delete('adding');
    for (const [i, { file, name, class: which }] of items.entries()) {
      if (/\.txt$/.test(name)) refused.push({ name, why: 'This is no picture.' });
      else {
        const one = find(which ?? name.split('/').at(-2));
        one.pictures.push(next);
        home.set(next++, one.id);
        added += 1;
      }
      if (i % 20 === 19) { await wait(5); changed(); tell('progress', { what: 'adding', done: i + 1, total: items.length }); }
      if (cancelled.has('adding')) break;
    }
    changed();
    return { added, refused };
  },
  deletePictures({ ids }) {
    note(ids.length === 1 ? 'deleting a picture' : `deleting ${ids.length} pictures`);
    for (const one of project.classes) one.pictures = one.pictures.filter((id) => !ids.includes(id));
    changed();
  },
  movePictures({ ids, class: to }) {
    note('moving pictures');
    for (const one of project.classes) one.pictures = one.pictures.filter((id) => !ids.includes(id));
    find(to).pictures.push(...ids);
    for (const id of ids) home.set(id, to);
    changed();
  },
  undo() { const last = undos.pop(); last?.back(); changed(); return { what: last?.what ?? null }; },
  async thumbnail({ id }) {
    const canvas = new OffscreenCanvas(96, 96);
    const to = canvas.getContext('2d');
    const hue = (home.get(id) ?? 0) * 67 % 360;
    to.fillStyle = `hsl(${hue} 40% ${70 + (id * 7) % 20}%)`;
    to.fillRect(0, 0, 96, 96);
    to.fillStyle = `hsl(${hue} 60% 35%)`;
    to.beginPath();
    to.ellipse(30 + (id * 13) % 36, 30 + (id * 29) % 36, 14 + (id * 5) % 14, 14 + (id * 3) % 18, id, 0, 7);
    to.fill();
    return canvas.convertToBlob({ type: 'image/png' });
  },
  async ask({ file }) {
    await wait(30);
    asked = true;
    const empty = { none: false, class: null, nearest: null, similarity: 0, probabilities: [], neighbours: [], ready: false, why: 'Give it two pictures or more, in classes that you name.' };
    if (shown().pictures < 2) return empty;
    const none = /strange/.test(file.name);
    const ids = project.classes.map((one) => one.id);
    const raw = ids.map((_, i) => 0.6 ** (2 * i + 1));
    const sum = raw.reduce((a, b) => a + b, 0);
    return { none, class: none ? null : ids[0], nearest: ids[0], similarity: none ? 0.31 : 0.87, probabilities: ids.map((id, i) => ({ class: id, probability: raw[i] / sum })), neighbours: similar(12), ready: true, why: null };
  },
  correct({ class: which }) {
    if (!asked) throw new Fault('usage', 'There is no picture to correct: ask about one first.');
    asked = false;
    const one = find(which);
    one.pictures.push(next);
    home.set(next, one.id);
    changed();
    return { id: next++ };
  },
  setUnknown({ rate }) { unknown = rate; },
  async useNetwork({ name }) { await going('embedding', 10, 20); network = name; tell('network', { network, networks }); },
  async suggestRun() {
    await wait(100);
    const { classes, pictures } = shown();
    if (classes.length < 2) return { settings: [], steps: 0, rows: 0, classes: 0, images: 0, refused: 'Training tells classes apart: give two classes with pictures, or more.' };
    return { settings, steps: 300, rows: 16, classes: classes.length, images: pictures, refused: null };
  },
  async train({ from, steps }) { await wait(100); run = { state: 'training', from, step: 0, steps: steps ?? 300, savedStep: 0, settings, points: [], message: null }; train(); },
  async pause() { clearInterval(timer); await wait(50); Object.assign(run, { state: 'paused', savedStep: run.step }); tell('run', { run }); },
  resume() { train(); },
  dropRun() { clearInterval(timer); run = null; tell('run', { run }); },
  async map() {
    await wait(50);
    const points = [...home].slice(0, 2000).map(([id, own]) => {
      const angle = own * 1.7;
      return { id, class: own, x: Math.max(-1, Math.min(1, 0.55 * Math.cos(angle) + 0.35 * (Math.random() + Math.random() - 1))), y: Math.max(-1, Math.min(1, 0.55 * Math.sin(angle) + 0.35 * (Math.random() + Math.random() - 1))) };
    });
    return { points, explained: [0.41, 0.17] };
  },
  neighbours: () => ({ neighbours: similar(12) }),
  confusions() {
    const classes = project.classes.map((one) => one.id);
    const counts = classes.map((_, i) => classes.map((__, j) => (i === j ? 17 : (i * 3 + j) % 5 === 1 ? 2 : 0)));
    const total = counts.flat().reduce((a, b) => a + b, 0) + classes.length;
    return { classes, counts, none: classes.map(() => 1), right: 17 * classes.length, total };
  },
  async check() { await going('check', 20, 10); return { cases: 20, passed: MOCK.wrong ? 19 : 20, failed: MOCK.wrong ? [{ name: 'conv2d.forward', error: 0.02, tolerance: 1e-4, worst: 'row 3' }] : [], seconds: 0.42 }; },
  async bench() {
    await going('bench', 10, 20);
    const seconds = (median) => ({ median, min: median, max: median, samples: 5 });
    return { version: '0', device: {}, kernels: ['conv2d.forward', 'conv2d.backward_weight', 'batch_norm.forward'].map((name, i) => ({ name, shape: '32x64x28x28', flops: 1e8, bytes: 4e6, seconds: seconds(0.002 / (i + 1)) })), steps: [{ preset: 'demo', images_per_second: seconds(137), seconds: seconds(0.23) }] };
  },
  cancel({ what }) { cancelled.add(what); },
  exportProject: () => ({ file: new File(['zip'], 'project.zip'), name: 'project.zip' }),
  importProject: () => calls.addPictures({ items: [0, 1, 2].map((i) => ({ file: null, name: `Imported/${i}.png`, class: null })) }),
  exportCheckpoint: () => ({ file: new Blob(['net']), name: 'network.safetensors' }),
  exportRun() { throw new Fault('usage', 'There is no checkpoint of a run yet.'); },
  exportRows: () => ({ file: new Blob(['path,f0\n']), name: 'embeddings.csv' }),
  importCheckpoint: () => ({ network: networks[0] }),
  eraseAll() { project.classes = []; changed(); },
  release() { tell('lost', { message: 'The browser took the device away.' }); },
  save() {},
  leave: () => self.close(),
  /** How often each call was made: for the tests. */
  counts: () => counts,
};

onmessage = async ({ data: { id, call, args } }) => {
  counts[call] = (counts[call] ?? 0) + 1;
  try {
    postMessage({ id, result: (await calls[call](args ?? {})) ?? {} });
  } catch (error) {
    postMessage({ id, error: { message: error.message, kind: error.kind ?? 'internal' } });
  }
};
tell('listening');

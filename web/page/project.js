// The whole project: out, in, kept, erased.

import { S } from './strings.js';
import { $, button, bytes, choose, download, h, progressBar, setText, toast } from './dom.js';
import { call, on } from './link.js';
import { state, update, watch } from './state.js';
import { confirm } from './dialog.js';
import { importZip } from './add.js';

let ui;

async function save(name) {
  try {
    const { file, name: own, refused = [] } = await call(name);
    download(file, own);
    toast(S.saved(own, bytes(file.size)));
    if (refused.length) toast(S.notExported(refused.length, `${refused[0].name}: ${refused[0].why}`), true);
  } finally {
    ui.exporting(null);
  }
}

async function estimate() {
  const { usage = 0, quota = 0 } = (await navigator.storage?.estimate?.()) ?? {};
  const persisted = (await navigator.storage?.persisted?.()) ?? false;
  update({ storage: { usage, quota, persisted } });
}

export const refreshStorage = () => estimate().catch(() => {});

function drawStorage({ storage }) {
  if (!storage) return;
  const { usage, quota, persisted } = storage;
  setText(ui.storage, S.storageUsed(bytes(usage), bytes(quota)));
  setText(ui.kept, persisted ? S.persisted : S.notPersisted);
  ui.meter.max = quota || 1;
  ui.meter.value = usage;
  ui.persist.hidden = persisted;
}

export function setUpProject() {
  const exporting = h('div', { class: 'work', hidden: true });
  ui = {
    storage: h('p', {}), kept: h('p', { class: 'hint' }), meter: h('meter', { min: 0, 'aria-label': S.storage }),
    exporting: progressBar(exporting, S.exporting, () => call('cancel', { what: 'exporting' })),
    persist: button(S.persist, async () => {
      if (!(await navigator.storage.persist())) throw new Error(S.persistRefused);
      await estimate();
    }),
  };
  on('progress', ({ what, done, total }) => what === 'exporting' && ui.exporting(done < total ? done : null, total));
  const zipIn = async () => {
    const [file] = await choose({ accept: '.zip' });
    if (file) await importZip(file);
  };
  const networkIn = async () => {
    const [file] = await choose({ accept: '.safetensors' });
    if (!file) return;
    const { network } = await call('importCheckpoint', { file });
    toast(S.networkUsed(network.title));
  };
  const erase = async () => {
    if (!(await confirm(S.erase, S.eraseText, S.erase))) return;
    await call('eraseAll');
    // All that the page shows is of what is gone.
    location.reload();
  };
  const commands = (lines) => h('pre', { class: 'scroll', tabindex: 0 }, h('code', { text: lines }));
  const gpu = [button(S.exportNetwork, () => save('exportCheckpoint')), button(S.exportRun, () => save('exportRun')), button(S.importNetwork, networkIn), button(S.exportRows, () => save('exportRows'))];
  $('project').append(h('h2', { text: S.project }),
    h('div', { class: 'panel' }, h('h3', { text: S.picturesTitle }), h('p', { class: 'hint', text: S.zipHint }),
      h('div', { class: 'row tools' }, button(S.exportZip, () => save('exportProject'), { class: 'primary' }), button(S.importZip, zipIn)), exporting, commands(S.trainCommand)),
    h('div', { class: 'panel' }, h('h3', { text: S.networkTitle }), h('p', { class: 'hint', text: S.networkHint }), h('div', { class: 'row tools' }, gpu), commands(S.networkCommands)),
    h('div', { class: 'panel' }, h('h3', { text: S.storage }), ui.storage, ui.meter, ui.kept, h('div', { class: 'row tools' }, ui.persist, button(S.erase, erase, { class: 'danger' }))));
  watch(['storage'], drawStorage);
}

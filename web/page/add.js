// Pictures on their way into classes: files, folders, zips, drops.

import { S } from './strings.js';
import { $, attempt, h, progressBar, say, toast } from './dom.js';
import { call, on } from './link.js';
import { isHidden } from './names.js';
import { chooseClass } from './dialog.js';

/** Pictures in one call: the page stays quick, and a cancelled one ends soon. */
const PART = 250;
const REFUSALS = 200;
let progress;
let adding = null;

const isZip = (file) => /\.zip$/i.test(file.name) || file.type === 'application/zip';

/** The files of a drop, with the folders that they lie in: [{file, name}]. Must be called within the event. */
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => ({ file, name: file.name }));
  const found = [];
  const file = (entry) => new Promise((resolve, reject) => entry.file(resolve, reject));
  const list = (reader) => new Promise((resolve, reject) => reader.readEntries(resolve, reject));
  const walk = async (entry, path) => {
    if (entry.isFile) found.push({ file: await file(entry), name: path + entry.name });
    if (!entry.isDirectory) return;
    const reader = entry.createReader();
    // A reader gives a part of a folder at a time.
    for (let some = await list(reader); some.length; some = await list(reader)) {
      for (const inner of some) await walk(inner, `${path}${entry.name}/`);
    }
  };
  for (const entry of entries) await walk(entry, '');
  return found;
}

/** The files of a file or folder input: [{file, name}]. */
export const chosen = (files) => files.map((file) => ({ file, name: file.webkitRelativePath || file.name }));

/** The additions so far. */
let last = Promise.resolve();

/**
 * Adds files to a class; with `to` null each goes to the class that its folder names, and where there is no folder one is
 * asked for. Zips are projects.
 */
export async function addFiles(files, to = null) {
  const zips = files.filter(({ file }) => isZip(file));
  let items = files.filter(({ file, name }) => !isZip(file) && !isHidden(name));
  const loose = to === null ? items.filter(({ name }) => !name.includes('/')) : [];
  if (loose.length) {
    const which = await chooseClass(S.whichClass, S.whichClassText(loose.length));
    if (which === null) items = items.filter(({ name }) => name.includes('/'));
    else for (const one of loose) one.to = which;
  }
  items.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  const sorted = items.filter((one) => to === null && !one.to);
  // Of all at once: what is around everything is no class.
  const { classes } = sorted.length ? await call('folderClasses', { names: sorted.map(({ name }) => name) }) : { classes: [] };
  const byFolder = new Map(sorted.map((one, i) => [one, classes[i]]));
  const named = items.map((one) => ({ file: one.file, name: one.name, class: to ?? one.to ?? byFolder.get(one) }));
  // What is added meanwhile comes after it.
  last = last.catch(() => {}).then(() => work(named, zips.map(({ file }) => file)));
  await last;
}

async function work(items, zips) {
  if (!items.length && !zips.length) return;
  adding = { done: 0, total: items.length, stop: false };
  const refused = [];
  let added = 0;
  const keep = (result) => {
    added += result.added;
    refused.push(...result.refused);
  };
  progress(0, items.length);
  try {
    for (; adding.done < items.length && !adding.stop; adding.done += PART) {
      keep(await call('addPictures', { items: items.slice(adding.done, adding.done + PART) }));
    }
    for (const file of zips) {
      if (adding.stop) break;
      adding = { ...adding, done: 0, total: null };
      keep(await call('importProject', { file }));
    }
  } finally {
    adding = null;
    progress(null);
    showRefused(refused);
  }
  toast(refused.length ? S.addedRefused(added, refused.length) : S.added(added));
}

/** Adds one picture or a few without a message: from the camera. */
export async function addQuietly(blobs, to) {
  const items = blobs.map((file) => ({ file, name: file.name ?? 'camera.jpg', class: to }));
  const { refused } = await call('addPictures', { items });
  if (refused.length) throw new Error(refused[0].why);
}

export function importZip(file) {
  return addFiles([{ file, name: file.name }]);
}

function showRefused(refused) {
  const box = $('refused');
  box.hidden = !refused.length;
  if (!refused.length) return;
  box.querySelector('summary').textContent = S.refused(refused.length);
  const lines = refused.slice(0, REFUSALS).map(({ name, why }) => h('li', {}, h('b', { text: name }), ` ${why}`));
  if (refused.length > REFUSALS) lines.push(h('li', { text: S.more(refused.length - REFUSALS) }));
  box.querySelector('ul').replaceChildren(...lines);
  say(S.refused(refused.length));
}

export function setUpAdding() {
  progress = progressBar($('adding'), S.adding, async () => {
    if (adding) adding.stop = true;
    await call('cancel', { what: 'adding' });
  });
  on('progress', ({ what, done, total }) => {
    if (what !== 'adding' || !adding) return;
    if (adding.total === null) progress(done, total);
    else progress(Math.min(adding.done + done, adding.total), adding.total);
  });
  acceptDrops(document.documentElement, null);
}

/** Drops on `node` go to the class that `to()` names, or with null to classes by folders. */
export function acceptDrops(node, to, take = null) {
  let inside = 0;
  const hasFiles = (event) => event.dataTransfer?.types.includes('Files');
  const mark = (change) => {
    inside = Math.max(0, inside + change);
    node.classList.toggle('over', inside > 0);
  };
  node.addEventListener('dragenter', (event) => hasFiles(event) && mark(1));
  node.addEventListener('dragleave', (event) => hasFiles(event) && mark(-1));
  node.addEventListener('dragover', (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = 'copy';
  });
  node.addEventListener('drop', (event) => {
    inside = 0;
    node.classList.remove('over');
    if (!hasFiles(event) || event.defaultPrevented) return;
    event.preventDefault();
    const files = dropped(event.dataTransfer);
    attempt(async () => (take ? take(await files) : addFiles(await files, to?.() ?? null)));
  });
  // A drop that a part of the page took ends here too.
  if (node === document.documentElement) node.addEventListener('drop', () => { inside = 0; node.classList.remove('over'); }, true);
}

// A project as one zip of class folders, and embeddings as a table.

import { isHidden } from '../names.js';
import { decode, png } from './decode.js';
import { described, isStop } from './fault.js';
import { openFile, removeFile, storageFault, writeAll } from './files.js';
import { state } from './state.js';
import { progress } from './turns.js';

const PROJECT_NAME = 'project.zip';

const MOST_LETTERS = 100;

/** A name that no system refuses or hides, with its extension where it has one. */
function safe(name, extension = '') {
  const stem = name.slice(0, name.length - extension.length);
  const text = [...stem.replace(/[\u0000-\u001f<>:"/\\|?*]/g, '_')].slice(0, MOST_LETTERS).join('').replace(/[. ]+$/, '') || '_';
  const own = /^(con|prn|aux|nul|com\d|lpt\d)(\.|$)/i.test(text) || /^(\.|__MACOSX$)/i.test(text) ? `_${text}` : text;
  return own + extension.replace(/[^.\w]/g, '_');
}

/** The extension of a name, of at most five letters, with its dot. */
const extensionOf = (name) => /.(\.\w{1,5})$/.exec(name)?.[1] ?? '';

/** How files begin that the program reads: PNG, JPEG, GIF, BMP; WebP has its name behind a length. */
const KNOWN = ['\x89PNG', '\xff\xd8\xff', 'GIF8', 'BM'];

/** A picture for the program: as it is where that reads it, otherwise as PNG. */
async function forProgram(file, name) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const head = String.fromCharCode(...bytes.subarray(0, 12));
  if (KNOWN.some((start) => head.startsWith(start)) || /^RIFF[^]{4}WEBP$/.test(head)) return { bytes, name };
  const bitmap = await decode(file, name);
  try {
    const stem = name.slice(0, name.length - extensionOf(name).length);
    return { bytes: await png(bitmap), name: `${stem}.png` };
  } finally {
    bitmap.close();
  }
}

/** `name` or a name like it that is not among `used`, whatever the case of its letters; it is used then. */
function unique(name, used) {
  const dot = name.lastIndexOf('.') > 0 ? name.lastIndexOf('.') : name.length;
  let own = name;
  for (let i = 2; used.has(own.toLowerCase()); i += 1) own = `${name.slice(0, dot)} ${i}${name.slice(dot)}`;
  used.add(own.toLowerCase());
  return own;
}

/** A field of a table. */
const quoted = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

/** The zip that was written last is in nobody's way while it is saved, and removed when the page is opened again. */
export const clearExports = () => removeFile(state.folder, PROJECT_NAME);

/**
 * Writes all pictures that there are now into a file of the page: {file, name, refused}, where `refused` are those that could
 * not be read; null where it was cancelled.
 */
export async function exportZip(since) {
  const { folder, project, wasm } = state;
  const classes = project.classes.filter((one) => one.pictures.length).map(({ name, pictures }) => ({ name, pictures: [...pictures] }));
  const on = progress('exporting', project.count(), since);
  await clearExports();
  const file = await openFile(folder, PROJECT_NAME);
  const refused = [];
  let whole = false;
  /** What writing failed with, of which the zip keeps the words alone. */
  let failed = null;
  const write = (bytes, at) => {
    try {
      writeAll(file, bytes, at);
    } catch (error) {
      failed = storageFault(error);
      throw failed;
    }
  };
  const zip = new wasm.ZipOut({ write });
  try {
    const folders = new Set();
    let done = 0;
    for (const one of classes) {
      const name = unique(safe(one.name), folders);
      const used = new Set();
      for (const id of one.pictures) {
        const own = project.pictures.get(id)?.name ?? 'picture.png';
        try {
          const picture = await forProgram(await project.original(id), own);
          zip.add(`${name}/${unique(safe(picture.name, extensionOf(picture.name)), used)}`, picture.bytes);
        } catch (error) {
          if (failed || isStop(error)) throw error;
          refused.push({ name: `${one.name}/${own}`, why: described(error).message });
        }
        done += 1;
        if (!on(done)) return null;
      }
    }
    zip.finish();
    file.flush();
    whole = true;
  } catch (error) {
    throw failed ?? storageFault(error);
  } finally {
    if (!whole) {
      try {
        zip.free();
      } catch {
        // It was given away, or has stopped.
      }
    }
    file.close();
    if (!whole) await clearExports();
  }
  return { file: await (await folder.getFileHandle(PROJECT_NAME)).getFile(), name: PROJECT_NAME, refused };
}

/** What is in a zip, to be added one by one: {items, free}. Folders and what systems hide are left out. */
export function zipItems(file) {
  const reader = new FileReaderSync();
  const zip = new state.wasm.ZipIn({
    size: () => file.size,
    read: (at, end) => new Uint8Array(reader.readAsArrayBuffer(file.slice(at, end))),
  });
  const names = JSON.parse(zip.names()).map((name, i) => ({ name, i }));
  const items = names.filter(({ name }) => !name.endsWith('/') && !isHidden(name));
  const read = ({ name, i }) => ({ name, class: null, read: async () => new Blob([zip.read(i)]) });
  return { items: items.map(read), free: () => zip.free() };
}

/** The rows of all pictures as CSV: {file, name}. */
export function exportTable() {
  const { project } = state;
  const embedding = state.networks.need();
  const lines = [['path', ...Array.from({ length: embedding.width }, (_, i) => `f${i}`)].join(',')];
  for (const one of project.classes) {
    for (const id of one.pictures) {
      const row = embedding.row(id);
      if (row) lines.push([quoted(`${one.name}/${project.pictures.get(id)?.name ?? id}`), ...row].join(','));
    }
  }
  return { file: new Blob([lines.join('\n'), '\n'], { type: 'text/csv' }), name: 'embeddings.csv' };
}

// A project as one zip of class folders, and embeddings as a table.

import { Fault } from './fault.js';
import { openFile, removeFile, storageFault, writeAll } from './files.js';

const PROJECT_NAME = 'project.zip';

/** A name that no system refuses. */
function safe(name) {
  const text = name.replace(/[\u0000-\u001f<>:"/\\|?*]/g, '_').replace(/[. ]+$/, '').slice(0, 100) || '_';
  return /^(con|prn|aux|nul|com\d|lpt\d)(\.|$)/i.test(text) ? `_${text}` : text;
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

/** Writes all pictures into a file of the page: {file, name}. `on` is told how many are done, and says whether to go on. */
export async function exportZip(wasm, folder, project, on) {
  await removeFile(folder, PROJECT_NAME);
  const file = await openFile(folder, PROJECT_NAME);
  try {
    const zip = new wasm.ZipOut({ write: (bytes, at) => writeAll(file, bytes, at) });
    const folders = new Set();
    let done = 0;
    for (const one of project.classes) {
      const name = unique(safe(one.name), folders);
      const used = new Set();
      for (const id of one.pictures) {
        const own = unique(safe(project.pictures.get(id)?.name ?? 'picture.png'), used);
        zip.add(`${name}/${own}`, new Uint8Array(await (await project.original(id)).arrayBuffer()));
        done += 1;
        if (!on(done)) throw new Fault('usage', 'The export was stopped.');
      }
    }
    zip.finish();
    file.flush();
  } catch (error) {
    throw storageFault(error);
  } finally {
    file.close();
  }
  return { file: await (await folder.getFileHandle(PROJECT_NAME)).getFile(), name: PROJECT_NAME };
}

/** What is in a zip, to be added one by one: {items, free}. Folders and what systems hide are left out. */
export function zipItems(wasm, file) {
  const reader = new FileReaderSync();
  const zip = new wasm.ZipIn({
    size: () => file.size,
    read: (at, end) => new Uint8Array(reader.readAsArrayBuffer(file.slice(at, end))),
  });
  const hidden = (name) => name.split('/').some((part) => part.startsWith('.') || part === '__MACOSX');
  const names = JSON.parse(zip.names()).map((name, i) => ({ name, i }));
  const items = names.filter(({ name }) => !name.endsWith('/') && !hidden(name));
  const read = ({ name, i }) => ({ name, read: async () => ({ file: new Blob([zip.read(i)]), name, class: null }) });
  return { items: items.map(read), free: () => zip.free() };
}

/** The rows of all pictures as CSV: {file, name}. */
export function exportTable(project, embedding) {
  const lines = [['path', ...Array.from({ length: embedding.width }, (_, i) => `f${i}`)].join(',')];
  for (const one of project.classes) {
    for (const id of one.pictures) {
      const row = embedding.row(id);
      if (row) lines.push([quoted(`${one.name}/${project.pictures.get(id)?.name ?? id}`), ...row].join(','));
    }
  }
  return { file: new Blob([lines.join('\n'), '\n'], { type: 'text/csv' }), name: 'embeddings.csv' };
}

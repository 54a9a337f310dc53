// Files of the browser that only this page sees (the origin-private file system), as the worker uses them.

import { Fault } from './fault.js';

/** The folder of the page; `name` tells it from those of other pages of the same server. */
export async function root(name) {
  if (!navigator.storage?.getDirectory) {
    throw new Fault('storage', 'This browser keeps no files for a page, so nothing can be stored here. Use a current browser, and not a private window.');
  }
  try {
    return await (await navigator.storage.getDirectory()).getDirectoryHandle(name, { create: true });
  } catch (error) {
    throw storageFault(error);
  }
}

const FULL = 'There is no room left for this page. Delete pictures, or make room on the disk; what was stored before is still there.';

/** What a failed read or write says. What is no failure of the browser's files stays what it is. */
export function storageFault(error) {
  if (!(error instanceof DOMException)) return error;
  if (error.name === 'QuotaExceededError') return new Fault('full', FULL);
  return new Fault('storage', `The browser could not read or write a file of this page (${error.message}).`);
}

/** The names of what is in a folder. */
export async function namesIn(folder) {
  const names = [];
  for await (const name of folder.keys()) names.push(name);
  return names;
}

/** Opens a file for reading and writing at once; it is made where it is not there. */
export async function openFile(folder, name) {
  try {
    const handle = await folder.getFileHandle(name, { create: true });
    return await handle.createSyncAccessHandle();
  } catch (error) {
    throw storageFault(error);
  }
}

/** The bytes of a file; null where there is none. */
export async function readFile(folder, name) {
  try {
    const file = await (await folder.getFileHandle(name)).getFile();
    return new Uint8Array(await file.arrayBuffer());
  } catch (error) {
    if (error.name === 'NotFoundError') return null;
    throw storageFault(error);
  }
}

/** Writes a whole file and has it on the disk. */
export async function writeFile(folder, name, bytes) {
  const file = await openFile(folder, name);
  try {
    replace(file, bytes);
  } finally {
    file.close();
  }
}

/** Makes these bytes the whole content of an open file, and has them on the disk. */
export function replace(file, bytes) {
  try {
    writeAll(file, bytes, 0);
    file.truncate(bytes.byteLength);
    file.flush();
  } catch (error) {
    throw storageFault(error);
  }
}

export async function removeFile(folder, name) {
  try {
    await folder.removeEntry(name, { recursive: true });
  } catch (error) {
    if (error.name !== 'NotFoundError') throw storageFault(error);
  }
}

/** Writes all bytes: a disk that is full may take a part. */
export function writeAll(file, bytes, at) {
  const written = file.write(bytes, { at });
  if (written !== bytes.byteLength) {
    throw new Fault('full', FULL);
  }
}

/**
 * A document that is replaced whole: of two files the older one is written, so that the other is there whatever happens.
 */
export class Document {
  #folder;
  #name;
  #sequence = 0;
  #writing = Promise.resolve();
  #erased = false;

  constructor(folder, name) {
    this.#folder = folder;
    this.#name = name;
  }

  /** What was written last; null where there is nothing. */
  async read() {
    let found = null;
    for (const slot of ['a', 'b']) {
      const bytes = await readFile(this.#folder, `${this.#name}.${slot}.json`);
      if (!bytes?.length) continue;
      try {
        const one = JSON.parse(new TextDecoder().decode(bytes));
        if (one.sequence > (found?.sequence ?? 0)) found = one;
      } catch {
        // It was being written when the page was closed: the other one counts.
      }
    }
    this.#sequence = found?.sequence ?? 0;
    return found?.value ?? null;
  }

  /** Writes it, after what is being written. */
  write(value) {
    const next = this.#writing.catch(() => {}).then(async () => {
      if (this.#erased) return;
      const sequence = this.#sequence + 1;
      const bytes = new TextEncoder().encode(JSON.stringify({ sequence, value }));
      await writeFile(this.#folder, `${this.#name}.${sequence % 2 ? 'a' : 'b'}.json`, bytes);
      // Only now: what is tried again after a failure goes to the same file, and the good one stays.
      this.#sequence = sequence;
    });
    this.#writing = next;
    return next;
  }

  async remove() {
    await this.#writing.catch(() => {});
    for (const slot of ['a', 'b']) await removeFile(this.#folder, `${this.#name}.${slot}.json`);
    this.#sequence = 0;
  }

  /** Removes it, and writes nothing any more. */
  async erase() {
    this.#erased = true;
    await this.remove();
  }
}

const HEAD = 8;
const GONE = 0xffffffff;

/** Small records by number in one file that grows; what is cut off at its end is dropped when it is opened. */
export class Pack {
  #file;
  #at = new Map();
  #end = 0;
  #stale = 0;

  static async open(folder, name) {
    const pack = await Pack.#opened(folder, name);
    if (!(pack.#stale > 4 << 20 && pack.#stale > pack.#end / 2)) return pack;
    await pack.#compact(folder, name);
    return Pack.#opened(folder, name);
  }

  static async #opened(folder, name) {
    const pack = new Pack();
    pack.#file = await openFile(folder, name);
    try {
      pack.#scan();
    } catch (error) {
      pack.close();
      throw storageFault(error);
    }
    return pack;
  }

  #scan() {
    const size = this.#file.getSize();
    const head = new DataView(new ArrayBuffer(HEAD));
    let at = 0;
    while (at + HEAD <= size) {
      this.#file.read(head, { at });
      const [id, length] = [head.getUint32(0, true), head.getUint32(4, true)];
      const bytes = length === GONE ? 0 : length;
      if (at + HEAD + bytes > size) break;
      this.#note(id, at + HEAD, length);
      at += HEAD + bytes;
    }
    this.#end = at;
    if (at < size) this.#file.truncate(at);
  }

  #note(id, at, length) {
    const old = this.#at.get(id);
    if (old) this.#stale += HEAD + old.length;
    if (length === GONE) {
      this.#stale += HEAD;
      this.#at.delete(id);
    } else {
      this.#at.set(id, { at, length });
    }
  }

  /** Closes it, and leaves a file without what is gone, where the browser can make one; otherwise it stays as it is. */
  async #compact(folder, name) {
    const next = new Pack();
    try {
      await removeFile(folder, `${name}.new`);
      next.#file = await openFile(folder, `${name}.new`);
      for (const id of this.#at.keys()) next.put(id, this.get(id));
      next.flush();
      next.close();
      this.close();
      await (await folder.getFileHandle(`${name}.new`)).move(folder, name);
    } catch {
      next.#file?.close();
      this.close();
      await removeFile(folder, `${name}.new`).catch(() => {});
    }
  }

  /** Drops the records whose number is none that `wanted` says yes to. */
  keep(wanted) {
    for (const id of [...this.#at.keys()]) if (!wanted(id)) this.drop(id);
  }

  has(id) {
    return this.#at.has(id);
  }

  get(id) {
    const found = this.#at.get(id);
    if (!found) return null;
    const bytes = new Uint8Array(found.length);
    this.#file.read(bytes, { at: found.at });
    return bytes;
  }

  put(id, bytes) {
    const record = new Uint8Array(HEAD + bytes.byteLength);
    const view = new DataView(record.buffer);
    view.setUint32(0, id, true);
    view.setUint32(4, bytes.byteLength, true);
    record.set(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength), HEAD);
    try {
      writeAll(this.#file, record, this.#end);
    } catch (error) {
      this.#cut();
      throw storageFault(error);
    }
    this.#note(id, this.#end + HEAD, bytes.byteLength);
    this.#end += record.byteLength;
  }

  /** What cannot be noted on a full disk is there again when the pack is opened anew: `keep` drops it then. */
  drop(id) {
    if (!this.#at.has(id)) return;
    const record = new DataView(new ArrayBuffer(HEAD));
    record.setUint32(0, id, true);
    record.setUint32(4, GONE, true);
    this.#note(id, this.#end + HEAD, GONE);
    try {
      writeAll(this.#file, record, this.#end);
      this.#end += HEAD;
    } catch {
      this.#cut();
    }
  }

  /** Nothing of a record that was written in part stays: shorter ones would leave its end behind them. */
  #cut() {
    try {
      this.#file.truncate(this.#end);
    } catch {
      // The next record is written over it.
    }
  }

  flush() {
    this.#file.flush();
  }

  close() {
    this.#file.close();
  }
}

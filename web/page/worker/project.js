// Classes and their pictures, as they are kept in the browser.

import { Fault } from './fault.js';
import { Document, Pack, removeFile, storageFault, writeFile } from './files.js';
import { decode, middle, thumbnail } from './decode.js';

const LONGEST_NAME = 80;
/** Steps that can be undone. */
const UNDONE = 50;
/** Milliseconds between writes of the list of pictures while it changes. */
const PAUSE = 700;

export class Project {
  /** Class: {id, name, pictures: [id]}. */
  classes = [];
  /** Picture by id: {name, shorter, bytes}. */
  pictures = new Map();
  #folder;
  #document;
  #originals;
  #thumbnails;
  /** Pixels as the engine takes them, by side. */
  #pixels = new Map();
  #next = 1;
  #undo = [];
  #timer = null;
  #changed;
  #square;

  /** `changed` is called after every change; `square(rgba, width, height, side)` resizes. */
  static async open(folder, { changed, square }) {
    const project = new Project();
    project.#folder = folder;
    project.#changed = changed;
    project.#square = square;
    project.#document = new Document(folder, 'project');
    project.#originals = await folder.getDirectoryHandle('pictures', { create: true });
    project.#thumbnails = await Pack.open(folder, 'thumbnails');
    const kept = await project.#document.read();
    if (kept) {
      project.classes = kept.classes;
      project.pictures = new Map(kept.pictures.map(({ id, ...picture }) => [id, picture]));
      project.#next = kept.next;
    }
    await (kept ? project.#clear() : project.#recover());
    return project;
  }

  /** Where there is no list, pictures that are there all the same are kept in a class of their own. */
  async #recover() {
    for await (const name of this.#originals.keys()) {
      const id = Number(name);
      this.#next = Math.max(this.#next, id + 1);
      this.pictures.set(id, { name, shorter: 0, bytes: 0 });
    }
    if (this.pictures.size) this.classes.push({ id: this.#next++, name: 'Recovered', pictures: [...this.pictures.keys()] });
  }

  /** Removes files of pictures that are in no class: they were deleted, or were being added when the page was closed. */
  async #clear() {
    const own = new Set(this.classes.flatMap((one) => one.pictures));
    for (const id of [...this.pictures.keys()].filter((id) => !own.has(id))) this.pictures.delete(id);
    const files = new Set();
    for await (const name of this.#originals.keys()) {
      const id = Number(name);
      files.add(id);
      if (!own.has(id)) {
        await removeFile(this.#originals, name);
        this.#thumbnails.drop(id);
      }
      this.#next = Math.max(this.#next, id + 1);
    }
    // A list that is older than the files says more than there is.
    for (const one of this.classes) one.pictures = one.pictures.filter((id) => files.has(id));
  }

  /** What the page shows. */
  shown() {
    const classes = this.classes.map(({ id, name, pictures }) => ({ id, name, pictures: [...pictures] }));
    return { classes, pictures: this.count(), undo: this.#undo.at(-1)?.what ?? null };
  }

  count() {
    return this.classes.reduce((n, one) => n + one.pictures.length, 0);
  }

  /** Tells of a change, and writes it within a moment. */
  touch() {
    this.#changed();
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.save().catch(() => {});
    }, PAUSE);
  }

  async save() {
    const pictures = [...this.pictures].map(([id, picture]) => ({ id, ...picture }));
    await this.#document.write({ next: this.#next, classes: this.classes, pictures });
  }

  class(id) {
    const found = this.classes.find((one) => one.id === id);
    if (!found) throw new Fault('usage', 'This class is not there any more.');
    return found;
  }

  #name(name, own = null) {
    const text = String(name ?? '').normalize('NFC').replace(/[\u0000-\u001f\u007f]/g, ' ').trim();
    if (!text) throw new Fault('usage', 'A class needs a name.');
    if ([...text].length > LONGEST_NAME) throw new Fault('usage', `A name has at most ${LONGEST_NAME} letters.`);
    const same = (one) => one.id !== own && one.name.toLowerCase() === text.toLowerCase();
    if (this.classes.some(same)) throw new Fault('usage', `There is a class “${text}” already.`);
    return text;
  }

  addClass(name) {
    const one = { id: this.#next++, name: this.#name(name), pictures: [] };
    this.classes.push(one);
    this.touch();
    return one.id;
  }

  renameClass(id, name) {
    const one = this.class(id);
    one.name = this.#name(name, id);
    this.touch();
  }

  /** The class of a name or id; made where there is none of that name. */
  classFor(which) {
    if (typeof which === 'number') return this.class(which);
    const name = String(which).normalize('NFC').trim().toLowerCase();
    return this.classes.find((one) => one.name.toLowerCase() === name) ?? this.class(this.addClass(which));
  }

  deleteClass(id) {
    const at = this.classes.indexOf(this.class(id));
    const [one] = this.classes.splice(at, 1);
    this.#note(`deleting “${one.name}”`, () => this.classes.splice(Math.min(at, this.classes.length), 0, one), one.pictures);
    this.touch();
  }

  deletePictures(ids) {
    const gone = new Set(ids);
    const before = this.classes.map((one) => [one, one.pictures]);
    for (const one of this.classes) one.pictures = one.pictures.filter((id) => !gone.has(id));
    const back = () => this.#restore(before, gone);
    this.#note(ids.length === 1 ? 'deleting a picture' : `deleting ${ids.length} pictures`, back, ids);
    this.touch();
  }

  movePictures(ids, to) {
    const target = this.class(to);
    const moved = new Set(ids);
    const before = this.classes.map((one) => [one, one.pictures]);
    for (const one of this.classes) one.pictures = one.pictures.filter((id) => !moved.has(id));
    target.pictures = [...target.pictures, ...ids.filter((id) => this.pictures.has(id))];
    this.#note(`moving ${ids.length === 1 ? 'a picture' : `${ids.length} pictures`}`, () => this.#restore(before, moved), []);
    this.touch();
  }

  /** Puts pictures back where they were; what was added meanwhile stays. */
  #restore(before, ids) {
    for (const one of this.classes) one.pictures = one.pictures.filter((id) => !ids.has(id));
    for (const [one, pictures] of before) {
      const own = new Set(pictures);
      const later = one.pictures.filter((id) => !own.has(id));
      const now = new Set(one.pictures);
      one.pictures = [...pictures.filter((id) => now.has(id) || ids.has(id)), ...later];
    }
  }

  #note(what, back, ids) {
    this.#undo.push({ what, back, ids });
    if (this.#undo.length > UNDONE) {
      const { ids } = this.#undo.shift();
      const own = new Set(this.classes.flatMap((one) => one.pictures));
      for (const id of ids.filter((id) => !own.has(id))) this.#forget(id);
    }
  }

  #forget(id) {
    this.pictures.delete(id);
    this.#thumbnails.drop(id);
    for (const pack of this.#pixels.values()) pack.drop(id);
    removeFile(this.#originals, String(id)).catch(() => {});
  }

  undo() {
    const last = this.#undo.pop();
    last?.back();
    if (last) this.touch();
    return last?.what ?? null;
  }

  /** Adds a picture to a class; its id. `side`: the square that the network takes, where there is one. */
  async add(blob, name, which, side) {
    const bitmap = await decode(blob, name);
    const id = this.#next++;
    try {
      if (side) (await this.pixelsAt(side)).put(id, this.squared(bitmap, side));
      this.#thumbnails.put(id, await thumbnail(bitmap));
      await writeFile(this.#originals, String(id), new Uint8Array(await blob.arrayBuffer()));
      const picture = { name, shorter: Math.min(bitmap.width, bitmap.height), bytes: blob.size };
      const target = this.classFor(which);
      this.pictures.set(id, picture);
      target.pictures.push(id);
    } catch (error) {
      await removeFile(this.#originals, String(id)).catch(() => {});
      throw storageFault(error);
    } finally {
      bitmap.close();
    }
    return id;
  }

  squared(bitmap, side) {
    const { rgba, side: own } = middle(bitmap);
    return this.#square(rgba, own, own, side);
  }

  async pixelsAt(side) {
    if (!this.#pixels.has(side)) this.#pixels.set(side, await Pack.open(this.#folder, `pixels-${side}`));
    return this.#pixels.get(side);
  }

  /** Pixels of a picture at a side; decoded anew where they were not kept. */
  async pixels(id, side) {
    const pack = await this.pixelsAt(side);
    const kept = pack.get(id);
    if (kept?.length === 4 * side * side) return kept;
    const bitmap = await decode(await this.original(id), this.pictures.get(id)?.name ?? 'the picture');
    const pixels = this.squared(bitmap, side);
    bitmap.close();
    pack.put(id, pixels);
    return pixels;
  }

  /** The file of a picture as it was added. */
  async original(id) {
    try {
      return await (await this.#originals.getFileHandle(String(id))).getFile();
    } catch (error) {
      if (error.name === 'NotFoundError') throw new Fault('storage', 'A picture is not in the browser’s files any more.');
      throw storageFault(error);
    }
  }

  async thumbnail(id) {
    let bytes = this.#thumbnails.get(id);
    if (!bytes) {
      const bitmap = await decode(await this.original(id), this.pictures.get(id)?.name ?? 'the picture');
      bytes = await thumbnail(bitmap);
      bitmap.close();
      this.#thumbnails.put(id, bytes);
    }
    return new Blob([bytes], { type: bytes[0] === 0x89 ? 'image/png' : 'image/webp' });
  }

  /** All pictures in the order of the classes: {id, class}. */
  list() {
    return this.classes.flatMap((one) => one.pictures.map((id) => ({ id, class: one.id })));
  }

  /** The shorter side of the pictures in the middle. */
  middleSide() {
    const sides = this.list().map(({ id }) => this.pictures.get(id)?.shorter ?? 0).sort((a, b) => a - b);
    return sides[Math.floor(sides.length / 2)] ?? 0;
  }

  flush() {
    this.#thumbnails.flush();
    for (const pack of this.#pixels.values()) pack.flush();
  }

  /** Everything is closed and removed. */
  async erase() {
    clearTimeout(this.#timer);
    this.#thumbnails.close();
    for (const pack of this.#pixels.values()) pack.close();
    for (const side of this.#pixels.keys()) await removeFile(this.#folder, `pixels-${side}`);
    await removeFile(this.#folder, 'thumbnails');
    await removeFile(this.#folder, 'pictures');
    await this.#document.remove();
  }
}

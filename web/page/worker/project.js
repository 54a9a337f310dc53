// Classes and their pictures, as they are kept in the browser.

import { Fault } from './fault.js';
import { Document, Pack, namesIn, removeFile, storageFault, writeFile } from './files.js';
import { decode, middle, thumbnail } from './decode.js';

const LONGEST_NAME = 200;
/** Steps that can be undone. */
const UNDONE = 50;
/** Milliseconds between writes of the list of pictures while it changes. */
const PAUSE = 700;
/** Numbers that are used before the list is written again: none is ever used twice, whatever was written last. */
const AHEAD = 4096;

/** A name of a class as it is kept. */
const plain = (name) => String(name ?? '').normalize('NFC').replace(/[\u0000-\u001f\u007f]/g, ' ').trim();

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
  /** The first number that the written list does not allow for. */
  #reserved = 0;
  #undo = [];
  #timer = null;
  #changed;
  #square;
  #trouble;
  #erased = false;

  /**
   * `changed` is called after every change; `square(rgba, width, height, side)` resizes; `trouble(error)` hears of a list
   * that could not be written.
   */
  static async open(folder, { changed, square, trouble }) {
    const project = new Project();
    project.#folder = folder;
    project.#changed = changed;
    project.#square = square;
    project.#trouble = trouble;
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
      if (!own.has(id)) await removeFile(this.#originals, name);
      this.#next = Math.max(this.#next, id + 1);
    }
    this.#thumbnails.keep((id) => own.has(id));
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
    if (this.#erased) return;
    this.#changed();
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.save().catch(this.#trouble);
    }, PAUSE);
  }

  async save() {
    if (this.#erased) return;
    const pictures = [...this.pictures].map(([id, picture]) => ({ id, ...picture }));
    const next = this.#next + AHEAD;
    await this.#document.write({ next, classes: this.classes, pictures });
    this.#reserved = next;
  }

  class(id) {
    const found = this.classes.find((one) => one.id === id);
    if (!found) throw new Fault('usage', 'This class is not there any more.');
    return found;
  }

  #name(name, own = null) {
    const text = plain(name);
    if (!text) throw new Fault('usage', 'A class needs a name.');
    if ([...text].length > LONGEST_NAME) throw new Fault('usage', `A name has at most ${LONGEST_NAME} letters.`);
    if (this.classes.some((one) => one.id !== own && one.name === text)) throw new Fault('usage', `There is a class “${text}” already.`);
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
    const name = plain(which);
    return this.classes.find((one) => one.name === name) ?? this.class(this.addClass(which));
  }

  deleteClass(id) {
    const at = this.classes.indexOf(this.class(id));
    const [one] = this.classes.splice(at, 1);
    this.#note(`deleting “${one.name}”`, () => {
      const name = one.name;
      // Another one may have the name by now.
      for (let i = 2; this.classes.some((other) => other.name === one.name); i += 1) one.name = `${name} ${i}`;
      this.classes.splice(Math.min(at, this.classes.length), 0, one);
    }, one.pictures);
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
    if (this.#undo.length > UNDONE) this.#forget(this.#undo.shift().ids).catch(this.#trouble);
  }

  /** Removes what is kept of pictures that are in no class and that no step back would bring there; how many they are. */
  async #forget(ids) {
    const own = new Set([...this.classes.flatMap((one) => one.pictures), ...this.#undo.flatMap((one) => one.ids)]);
    const gone = ids.filter((id) => this.pictures.has(id) && !own.has(id));
    for (const id of gone) {
      this.pictures.delete(id);
      this.#thumbnails.drop(id);
      // A file that stays is removed when the page is opened again.
      await removeFile(this.#originals, String(id)).catch(() => {});
    }
    for (const pack of await this.#packs()) gone.forEach((id) => pack.drop(id));
    return gone.length;
  }

  /** Makes room: what was deleted is removed for good, and pixels at all sides but these. Whether there was anything. */
  async reclaim(sides) {
    const ids = this.#undo.flatMap((one) => one.ids);
    this.#undo = [];
    this.touch();
    const gone = await this.#forget(ids);
    return (await this.keepSides(sides)) + gone > 0;
  }

  /** Removes the pixels that are kept at other sides than these: they are made anew when they are wanted. How many packs. */
  async keepSides(sides) {
    const names = await namesIn(this.#folder);
    const old = names.map((name) => Number(/^pixels-(\d+)$/.exec(name)?.[1] ?? NaN)).filter((side) => side && !sides.includes(side));
    for (const side of old) {
      (await this.#pixels.get(side)?.catch(() => null))?.close();
      this.#pixels.delete(side);
      await removeFile(this.#folder, `pixels-${side}`).catch(() => {});
    }
    return old.length;
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
      if (id >= this.#reserved) await this.save();
      if (side) await this.#keepPixels(id, side, this.squared(bitmap, side));
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

  /** The pixels that are kept at a side: opened once. */
  async #pixelsAt(side) {
    if (!this.#pixels.has(side)) {
      const opening = Pack.open(this.#folder, `pixels-${side}`).then((pack) => {
        pack.keep((id) => this.pictures.has(id));
        return pack;
      });
      this.#pixels.set(side, opening);
      opening.catch(() => this.#pixels.delete(side));
    }
    return this.#pixels.get(side);
  }

  /** The packs of pixels that are open. */
  async #packs() {
    return (await Promise.all([...this.#pixels.values()].map((opening) => opening.catch(() => null)))).filter(Boolean);
  }

  /** What cannot be kept is decoded anew when it is wanted. */
  async #keepPixels(id, side, pixels) {
    try {
      (await this.#pixelsAt(side)).put(id, pixels);
    } catch (error) {
      if (!error.kind) throw error;
    }
  }

  /** Pixels of a picture at a side; decoded anew where they were not kept. */
  async pixels(id, side) {
    const kept = (await this.#pixelsAt(side).catch(() => null))?.get(id);
    if (kept?.length === 4 * side * side) return kept;
    const bitmap = await decode(await this.original(id), this.pictures.get(id)?.name ?? 'the picture');
    let pixels;
    try {
      pixels = this.squared(bitmap, side);
    } finally {
      bitmap.close();
    }
    await this.#keepPixels(id, side, pixels);
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

  async flush() {
    this.#thumbnails.flush();
    for (const pack of await this.#packs()) pack.flush();
  }

  /** Everything is closed and removed, and nothing is written any more. */
  async erase() {
    this.#erased = true;
    clearTimeout(this.#timer);
    this.classes = [];
    this.pictures.clear();
    this.#undo = [];
    this.#thumbnails.close();
    for (const pack of await this.#packs()) pack.close();
    this.#pixels.clear();
    await this.#document.erase();
  }
}

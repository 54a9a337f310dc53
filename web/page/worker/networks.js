// The networks that embed pictures, and the rows of the pictures by each.

import { Fault } from './fault.js';
import { Pack, readFile, removeFile, writeFile } from './files.js';

/** The file that the page ships. */
const SHIPPED = new URL('../shipped.safetensors', import.meta.url);

export const TITLES = { shipped: 'the shipped network', trained: 'your trained network', imported: 'the imported network' };

async function fingerprint(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return [...digest.subarray(0, 8)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** One network, with what it has made of the pictures so far. */
export class Embedding {
  name;
  about;
  bytes;
  /** Tells it from other networks. */
  print;
  #network;
  #rows;

  /**
   * `before`, which was in use, is closed once the network is known to be one: both may keep their rows in one file. Rows of
   * networks that are not among `known` are of no use any more.
   */
  static async open(engine, wasm, folder, name, bytes, { before, known }) {
    const one = new Embedding();
    one.name = name;
    one.bytes = bytes.length;
    one.print = await fingerprint(bytes);
    one.#network = await wasm.Network.open(engine, TITLES[name], bytes);
    one.about = JSON.parse(one.#network.about());
    before?.close();
    const own = `rows-${one.print}`;
    one.#rows = await Pack.open(folder, own);
    const kept = new Set([own, ...known.filter((other) => other.name !== name).map((other) => `rows-${other.print}`)]);
    for await (const file of folder.keys()) {
      if (file.startsWith('rows-') && !kept.has(file)) await removeFile(folder, file).catch(() => {});
    }
    return one;
  }

  get network() {
    return this.#network;
  }

  get side() {
    return this.about.side;
  }

  get width() {
    return this.about.width;
  }

  get batch() {
    return this.#network.batch();
  }

  /** What the page shows of a network. */
  shown() {
    const { name, about, bytes, print } = this;
    return { name, title: TITLES[name], side: about.side, width: about.width, bytes, trained: name === 'trained', print };
  }

  async embed(pixels) {
    return this.#network.embed(pixels);
  }

  has(id) {
    return this.#rows.has(id);
  }

  row(id) {
    const bytes = this.#rows.get(id);
    return bytes && new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  }

  keep(id, row) {
    this.#rows.put(id, row);
  }

  drop(id) {
    this.#rows.drop(id);
  }

  close() {
    this.#rows.close();
    this.#network.free();
  }
}

/** The bytes of a network by name; null where there is none. */
export async function networkBytes(folder, name) {
  if (name !== 'shipped') return readFile(folder, `${name}.safetensors`);
  let response;
  try {
    response = await fetch(SHIPPED);
  } catch {
    response = null;
  }
  if (!response?.ok) throw new Fault('data', 'The shipped network could not be loaded. Load the page again while its server can be reached.');
  return new Uint8Array(await response.arrayBuffer());
}

export const keepNetwork = (folder, name, bytes) => writeFile(folder, `${name}.safetensors`, bytes);

// The networks that embed pictures, and the rows of the pictures by each. A network is a file that is named after its bytes;
// which ones there are, and which is in use, is one document.

import { Fault, described } from './fault.js';
import { Document, Pack, namesIn, readFile, removeFile, writeFile } from './files.js';
import { state, tell, trouble } from './state.js';

/** The file that the page ships. */
const SHIPPED = new URL('../shipped.safetensors', import.meta.url);
/** Share of the pictures of known classes that may be called none of these, unless the user says otherwise. */
const UNKNOWN = 0.05;
/** The most bytes of a network: ResNet-12 at full width with a run's state has a tenth. */
const MOST = 1 << 30;

const TITLES = { shipped: 'the shipped network', trained: 'your trained network', imported: 'the imported network' };
const titled = (name) => TITLES[name] ?? `network “${name}”`;
const fileOf = (print) => `network-${print}.safetensors`;
const rowsOf = (print) => `rows-${print}`;

async function fingerprint(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return [...digest.subarray(0, 8)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** One network on the device, with what it has made of the pictures so far. */
class Embedding {
  name;
  about;
  bytes;
  /** Tells it from other networks. */
  print;
  #network;
  #rows;

  /** `before` was in use, and is closed once the network is known to be one: both may have their rows in one file. */
  static async open({ name, bytes, print }, before) {
    const one = new Embedding();
    one.name = name;
    one.bytes = bytes.length;
    one.print = print;
    one.#network = await state.wasm.Network.open(state.device.need(), titled(name), bytes);
    one.about = JSON.parse(one.#network.about());
    try {
      one.#rows = before?.print === one.print ? before.#rows : await Pack.open(state.folder, rowsOf(one.print));
    } catch (error) {
      one.#network.free();
      throw error;
    }
    if (before && before.#rows !== one.#rows) before.#rows.close();
    before?.#network.free();
    one.#rows.keep((id) => state.project.pictures.has(id));
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
    return { name, title: titled(name), side: about.side, width: about.width, bytes, trained: name === 'trained', print };
  }

  has(id) {
    return this.#rows.has(id);
  }

  row(id) {
    const bytes = this.#rows.get(id);
    return bytes && new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  }

  /** Rows of pictures, back to back. */
  async embed(pixels) {
    return this.#network.embed(pixels);
  }

  keep(id, row) {
    this.#rows.put(id, row);
  }

  close() {
    this.#rows.close();
    this.#network.free();
  }
}

export class Networks {
  /** The one in use; none without a device. */
  current = null;
  /** Why there is none in spite of a device. */
  why = null;
  unknown = UNKNOWN;
  #document;
  /** What is kept: the one that was chosen, and all as they are shown. */
  #chosen = 'shipped';
  #all = [];
  /** Those that are being written, and are in no list yet. */
  #writing = new Set();
  #changed;

  /** `changed` is called when another one is in use. */
  static async open(changed) {
    const networks = new Networks();
    networks.#changed = changed;
    networks.#document = new Document(state.folder, 'settings');
    const { network, networks: all, unknown } = (await networks.#document.read()) ?? {};
    if (network) networks.#chosen = network;
    networks.#all = all ?? [];
    networks.unknown = unknown ?? UNKNOWN;
    return networks;
  }

  async #save() {
    await this.#document.write({ network: this.#chosen, networks: this.#all, unknown: this.unknown });
  }

  /** For the page: the name of the one in use, and all. */
  shown() {
    return { network: this.current?.name ?? null, networks: this.#all };
  }

  async setUnknown(rate) {
    this.unknown = rate;
    await this.#save();
  }

  /** The one in use, for what cannot be done without. */
  need() {
    state.device.need();
    if (!this.current) throw new Fault('device', this.why ?? 'No network is open.');
    return this.current;
  }

  /** A network by name: {name, bytes, print}. */
  async read(name) {
    const entry = this.#all.find((one) => one.name === name);
    if (!entry && name !== 'shipped') throw new Fault('usage', `There is no such network here: ${titled(name)}.`);
    const bytes = name === 'shipped' ? await shippedBytes() : await readFile(state.folder, fileOf(entry.print));
    const print = bytes && (await fingerprint(bytes));
    if (name !== 'shipped' && print !== entry.print) {
      throw new Fault('storage', `The file of ${titled(name)} is missing or damaged in the browser. Train or import it again.`);
    }
    return { name, bytes, print };
  }

  /** The network that a run starts from, as `read` has it; null from scratch. `print`: the one that it must be. */
  async start(from, print = null) {
    if (from === 'scratch') return null;
    const found = await this.read(from === 'current' ? this.need().name : from);
    if (print && print !== found.print) {
      throw new Fault('usage', 'The network that this run began with is not here any more, and no checkpoint was written yet: drop the run and begin another.');
    }
    return found;
  }

  /** Keeps a network and chooses it: it is in use after `use`, or when the page is opened again. */
  async keep(name, bytes) {
    const print = await fingerprint(bytes);
    const entry = { name, title: titled(name), side: null, width: null, bytes: bytes.length, trained: name === 'trained', print };
    const [chosen, old] = [this.#chosen, this.#all.find((one) => one.name === name)];
    this.#writing.add(print);
    try {
      await writeFile(state.folder, fileOf(print), bytes);
      this.#choose(entry);
      await this.#save();
    } catch (error) {
      // Another one may have been chosen meanwhile.
      if (this.#all.includes(entry)) this.#all = [...this.#all.filter((one) => one !== entry), old].filter(Boolean);
      if (this.#chosen === name) this.#chosen = chosen;
      throw error;
    } finally {
      this.#writing.delete(print);
    }
  }

  #choose(entry) {
    this.#chosen = entry.name;
    this.#all = [...this.#all.filter((one) => one.name !== entry.name), entry];
  }

  /** Uses a network from now on. */
  async use(name) {
    this.current = await Embedding.open(await this.read(name), this.current);
    this.why = null;
    this.#changed();
    this.#choose(this.current.shown());
    tell('network', this.shown());
    try {
      await this.#save();
      await this.#sweep();
    } catch (error) {
      // It is in use all the same, until the page is closed.
      trouble(described(error).message);
    }
  }

  /** Opens the network that was chosen, or where it cannot be opened the shipped one. */
  async useChosen() {
    try {
      await this.use(this.#chosen);
    } catch (error) {
      const { message, kind } = described(error);
      if (this.#chosen === 'shipped' || kind === 'lost') {
        this.why = message;
        throw error;
      }
      await this.use('shipped');
      trouble(`${message} The shipped network is in use.`);
    }
  }

  /** Keeps the network of a file and uses it; what is none changes nothing. */
  async take(file) {
    if (file.size > MOST) throw new Fault('data', `${file.name ?? 'This'} has more than the ${MOST >> 20} MiB that a network has at most: choose a checkpoint.`);
    const bytes = new Uint8Array(await file.arrayBuffer());
    (await state.wasm.Network.open(state.device.need(), file.name ?? 'the file', bytes)).free();
    await this.keep('imported', bytes);
    await this.use('imported');
    return this.current.shown();
  }

  /** Removes what belongs to no network that there is. */
  async #sweep() {
    for (const name of (await namesIn(state.folder)).filter((name) => /^(network|rows)-/.test(name))) {
      // Looked at each time: one may be kept meanwhile.
      const prints = [...this.#all.map((one) => one.print), ...this.#writing];
      if (!prints.some((print) => [fileOf(print), rowsOf(print)].includes(name))) await removeFile(state.folder, name).catch(() => {});
    }
    await state.project.keepSides(this.#all.map((one) => one.side));
  }

  /** The device is gone, and with it what is on it. */
  close() {
    this.current?.close();
    this.current = null;
    this.#changed();
  }

  async erase() {
    this.close();
    this.#all = [];
    this.#chosen = 'shipped';
    await this.#document.erase();
  }
}

async function shippedBytes() {
  let response;
  try {
    response = await fetch(SHIPPED);
  } catch {
    response = null;
  }
  if (!response?.ok) throw new Fault('data', 'The shipped network could not be loaded. Load the page again while its server can be reached.');
  return new Uint8Array(await response.arrayBuffer());
}

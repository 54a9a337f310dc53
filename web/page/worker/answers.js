// Answers on pictures, and what people look at, from the rows of the pictures in classes.

import { isStop } from './fault.js';
import { state } from './state.js';
import { progress } from './turns.js';

/** Pictures on the map, which takes memory with the square of their number, and neighbours that are shown. */
const MAPPED = 2000;
const NEIGHBOURS = 12;
/** Pictures by which it is seen whether what a network says of its similarities holds for them. */
const LOOKED_AT = 64;
/** Milliseconds of work between two looks at what else there is to do. */
const PIECE = 50;

/** Bytes of equal length back to back. */
export function joined(parts) {
  const size = parts[0]?.length ?? 0;
  const all = new Uint8Array(size * parts.length);
  parts.forEach((part, i) => all.set(part, i * size));
  return all;
}

let learned = null;
let changes = 0;

/** Answers rest on something else from now on. */
export function forget() {
  learned?.free();
  learned = null;
  changes += 1;
}

/** What answers rest on: the pictures in classes that the network in use has seen. Made anew after a change; in turn. */
export async function answers() {
  if (learned) return learned;
  const before = changes;
  const found = await Answers.of(state.networks.need());
  // Of pictures that have changed meanwhile it answers this once.
  if (before === changes) learned = found;
  return found;
}

class Answers {
  #support = null;
  /** Work under way that needs the support. */
  #users = 0;
  #freed = false;
  #classOf;
  #width;
  /** Of each row its picture and the position of its class; the ids of the classes; the rows back to back. */
  #ids = [];
  #labels;
  #classes = [];
  #rows;
  /** What there is too little of. */
  why;

  static async of(embedding) {
    const answers = new Answers();
    answers.#gather(embedding);
    await answers.#learn(embedding);
    return answers;
  }

  #gather(embedding) {
    const { project } = state;
    const { width } = embedding;
    this.#width = width;
    this.#classOf = new Map(project.list().map((picture) => [picture.id, picture.class]));
    const [labels, rows] = [[], []];
    for (const one of project.classes) {
      // A row of zeros is like nothing.
      const own = one.pictures.map((id) => [id, embedding.row(id)]).filter(([, row]) => row?.some((x) => x !== 0));
      if (!own.length) continue;
      for (const [id, row] of own) {
        this.#ids.push(id);
        labels.push(this.#classes.length);
        rows.push(row);
      }
      this.#classes.push(one.id);
    }
    this.#labels = Uint32Array.from(labels);
    this.#rows = new Float32Array(rows.length * width);
    rows.forEach((row, i) => this.#rows.set(row, i * width));
  }

  async #learn(embedding) {
    const n = this.#ids.length;
    if (n < 2) {
      this.why = 'Give it two pictures or more, in classes that you name.';
      return;
    }
    const step = Math.max(1, Math.floor(n / LOOKED_AT));
    const squares = [];
    for (const id of this.#ids.filter((_, i) => i % step === 0).slice(0, LOOKED_AT)) {
      // One that cannot be read says nothing here.
      const pixels = await state.project.pixels(id, embedding.side).catch((error) => {
        if (isStop(error)) throw error;
      });
      if (pixels) squares.push(pixels);
    }
    const reference = embedding.network.reference(embedding.name === 'shipped', joined(squares));
    this.#support = new state.wasm.Support(this.#rows, this.#width, this.#labels, this.#classes.length, reference);
    this.why = this.#classes.length < 2 ? 'With one class it can only tell what is like it from what is not.' : null;
  }

  /** The answer on a row; `unknown` as `setUnknown` has it. */
  answer(row, unknown) {
    const { why } = this;
    if (!this.#support || !row.some((x) => x !== 0)) {
      return { none: false, class: null, nearest: null, similarity: 0, probabilities: [], neighbours: [], ready: false, why };
    }
    const found = JSON.parse(this.#support.answer(row, unknown));
    const id = (label) => (label === null ? null : this.#classes[label]);
    const probabilities = found.probabilities.map((probability, label) => ({ class: id(label), probability }));
    probabilities.sort((a, b) => b.probability - a.probability);
    return {
      none: found.class === null, class: id(found.class), nearest: id(found.nearest), similarity: found.similarity, probabilities,
      neighbours: this.nearest(row), ready: true, why,
    };
  }

  /** The pictures most like a row, but for the picture `without`. */
  nearest(row, without = null) {
    const found = state.wasm.nearest(row, this.#rows, NEIGHBOURS + 1);
    const neighbours = [];
    for (let i = 0; i < found.length; i += 2) {
      const id = this.#ids[found[i]];
      if (id !== without) neighbours.push({ id, class: this.#classOf.get(id) ?? null, similarity: found[i + 1] });
    }
    return neighbours.slice(0, NEIGHBOURS);
  }

  /** Every picture answered by the others: a piece at a time, so that other things go on. Null where it was cancelled. */
  async confusions(unknown) {
    const none = this.#classes.map(() => 0);
    const sum = { classes: this.#classes, counts: this.#classes.map(() => [...none]), none, right: 0, total: 0 };
    if (!this.#support) return { ...sum, classes: [], counts: [], none: [] };
    const n = this.#ids.length;
    const on = progress('confusions', n);
    this.#users += 1;
    try {
      for (let [at, step] = [0, 16]; at < n;) {
        const begun = performance.now();
        const end = Math.min(at + step, n);
        const part = JSON.parse(this.#support.confusions(this.#rows, this.#labels, unknown, at, end));
        part.counts.forEach((row, i) => row.forEach((count, j) => { sum.counts[i][j] += count; }));
        part.none.forEach((count, i) => { sum.none[i] += count; });
        sum.right += part.right;
        sum.total += part.total;
        if (!on(end)) return null;
        at = end;
        if (performance.now() - begun < PIECE / 2) step *= 2;
        await new Promise((resolve) => setTimeout(resolve));
      }
    } finally {
      this.#users -= 1;
      if (this.#freed) this.free();
    }
    return sum;
  }

  /** The pictures in two dimensions; evenly spread ones, where there are more than can be mapped. */
  map() {
    const all = this.#ids.length;
    if (all < 2) return { points: [], explained: [0, 0] };
    const n = Math.min(all, MAPPED);
    const chosen = Array.from({ length: n }, (_, i) => Math.floor((i * all) / n));
    const width = this.#width;
    const rows = new Float32Array(n * width);
    chosen.forEach((from, i) => {
      const row = this.#rows.subarray(from * width, (from + 1) * width);
      const length = Math.hypot(...row);
      rows.set(row.map((x) => x / length), i * width);
    });
    const found = state.wasm.projection(rows, width);
    let most = 1e-12;
    for (let i = 0; i < 2 * n; i += 1) most = Math.max(most, Math.abs(found[i]));
    const points = chosen.map((from, i) => {
      const id = this.#ids[from];
      return { id, class: this.#classOf.get(id) ?? null, x: found[2 * i] / most, y: found[2 * i + 1] / most };
    });
    return { points, explained: [found[2 * n], found[2 * n + 1]] };
  }

  /** Frees what it has in the module of the engine, after what is under way. */
  free() {
    this.#freed = true;
    if (this.#users) return;
    this.#support?.free();
    this.#support = null;
  }
}

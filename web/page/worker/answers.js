// Answers on pictures, and what people look at, from the rows of the pictures in classes.

/** Pictures on the map, which takes memory with the square of their number, and neighbours that are shown. */
const MAPPED = 2000;
const NEIGHBOURS = 12;
/** Pictures by which it is seen whether what a network says of its similarities holds for them. */
const LOOKED_AT = 64;

/** Bytes of equal length back to back. */
export function joined(parts) {
  const size = parts[0]?.length ?? 0;
  const all = new Uint8Array(size * parts.length);
  parts.forEach((part, i) => all.set(part, i * size));
  return all;
}

export class Answers {
  #wasm;
  #support = null;
  #classOf;
  #width;
  /** Of each row its picture and the position of its class; the ids of the classes; the rows back to back. */
  #ids = [];
  #labels;
  #classes = [];
  #rows;
  /** What there is too little of. */
  why;

  /** By the pictures of a project that an embedding has seen. */
  static async of(wasm, project, embedding) {
    const answers = new Answers();
    answers.#wasm = wasm;
    answers.#gather(project, embedding);
    await answers.#learn(project, embedding);
    return answers;
  }

  #gather(project, embedding) {
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

  async #learn(project, embedding) {
    const n = this.#ids.length;
    if (n < 2) {
      this.why = 'Give it two pictures or more, in classes that you name.';
      return;
    }
    const step = Math.max(1, Math.floor(n / LOOKED_AT));
    const squares = [];
    for (const id of this.#ids.filter((_, i) => i % step === 0).slice(0, LOOKED_AT)) {
      squares.push(await project.pixels(id, embedding.side));
    }
    const reference = embedding.network.reference(embedding.name === 'shipped', joined(squares));
    this.#support = new this.#wasm.Support(this.#rows, this.#width, this.#labels, this.#classes.length, reference);
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
    const found = this.#wasm.nearest(row, this.#rows, NEIGHBOURS + 1);
    const neighbours = [];
    for (let i = 0; i < found.length; i += 2) {
      const id = this.#ids[found[i]];
      if (id !== without) neighbours.push({ id, class: this.#classOf.get(id) ?? null, similarity: found[i + 1] });
    }
    return neighbours.slice(0, NEIGHBOURS);
  }

  /** Every picture answered by the others. */
  confusions(unknown) {
    if (!this.#support) return { classes: [], counts: [], none: [], right: 0, total: 0 };
    return { classes: this.#classes, ...JSON.parse(this.#support.confusions(this.#rows, this.#labels, unknown)) };
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
    const found = this.#wasm.projection(rows, width);
    let most = 1e-12;
    for (let i = 0; i < 2 * n; i += 1) most = Math.max(most, Math.abs(found[i]));
    const points = chosen.map((from, i) => {
      const id = this.#ids[from];
      return { id, class: this.#classOf.get(id) ?? null, x: found[2 * i] / most, y: found[2 * i + 1] / most };
    });
    return { points, explained: [found[2 * n], found[2 * n + 1]] };
  }

  free() {
    this.#support?.free();
    this.#support = null;
  }
}

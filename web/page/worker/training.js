// A run: what it trains on is kept beside its checkpoints, so that it goes on bit for bit after the page was closed, whatever
// happened to the pictures meanwhile.

import { Fault } from './fault.js';
import { Document, openFile, readFile, removeFile, storageFault, writeAll, writeFile } from './files.js';
import { keepNetwork } from './networks.js';

/** Milliseconds between checkpoints, and between reports to the page. */
const SAVE_EVERY = 20_000;
const TELL_EVERY = 250;
/** Points of the curves that are kept. */
const POINTS = 1500;

export class Training {
  /** What is kept: {from, state, step, steps, config, settings, classes, labels, side, original, checkpoint, points, ...}. */
  kept = null;
  #folder;
  #document;
  #wasm;
  #tell;
  #run = null;
  #engine = null;
  #wanted = null;
  #last = { saved: 0, told: 0, images: 0, time: 0 };
  /** The score of the step whose losses come next. */
  #validated = null;
  #speed = null;
  #left = null;
  #slots = [];
  #working = null;

  static async open(folder, wasm, tell) {
    const training = new Training();
    training.#folder = await folder.getDirectoryHandle('run', { create: true });
    training.#document = new Document(training.#folder, 'run');
    training.#wasm = wasm;
    training.#tell = tell;
    training.kept = await training.#document.read();
    // The page was closed while it trained.
    if (training.kept?.state === 'training') training.kept.state = 'paused';
    return training;
  }

  get active() {
    return this.#working !== null;
  }

  /** What the page shows. */
  shown() {
    if (!this.kept) return null;
    const { state, from, step, steps, settings, points, message } = this.kept;
    const last = points.findLast((point) => point.loss !== null);
    return {
      state, from, step, steps, settings, points, message: message ?? null,
      loss: last?.loss ?? null,
      accuracy: last?.accuracy ?? null,
      imagesPerSecond: this.active ? this.#speed : null,
      secondsLeft: this.active ? this.#left : null,
      savedStep: this.kept.checkpoint?.step ?? 0,
    };
  }

  /** Begins a run: `pictures` {pixels, labels, classes, side, original}, `plan` as `plan_run` makes it. */
  async begin(engine, { from, plan, pictures, network, heldOut }) {
    await this.drop();
    const { pixels, ...rest } = pictures;
    this.kept = {
      from, state: 'training', step: 0, steps: plan.steps, config: plan.config, settings: plan.settings,
      ...rest, checkpoint: null, best: null, points: [], heldOut,
    };
    try {
      await writeFile(this.#folder, 'pixels', pixels);
      await this.#load(engine, network, pixels);
      this.kept.config = this.#run.config();
      await this.#document.write(this.kept);
    } catch (error) {
      // There is no run that could go on.
      await this.drop();
      throw error;
    }
    await this.#train();
  }

  async #load(engine, network, pixels = null) {
    const { side, labels, classes, original, config, checkpoint } = this.kept;
    pixels ??= await readFile(this.#folder, 'pixels');
    this.#engine = engine;
    if (!pixels) throw new Fault('storage', 'The pictures of this run are not in the browser’s files any more: drop the run and begin another.');
    const bytes = checkpoint && (await readFile(this.#folder, `checkpoint.${checkpoint.slot}`));
    const pictures = new this.#wasm.Pictures(side, pixels, Uint32Array.from(labels), classes, original);
    try {
      this.#run = await this.#wasm.Run.open(engine, pictures, config, checkpoint ? undefined : network, bytes ?? undefined);
    } finally {
      pictures.free();
    }
  }

  /** Goes on; resolves when a step is done. */
  async resume(engine) {
    if (this.active) return;
    if (!this.kept || this.kept.state === 'done') throw new Fault('usage', 'There is no run to go on with.');
    if (!this.#run) {
      const network = this.kept.checkpoint ? null : await this.#tell.startingNetwork(this.kept.from);
      await this.#load(engine, network);
    }
    this.#step(this.#run.done());
    this.kept.message = null;
    await this.#train();
  }

  /** The curves end where the run goes on. */
  #step(done) {
    this.kept.step = done;
    this.kept.points = this.kept.points.filter((point) => point.step <= done);
  }

  /** Saves and stops after the step under way. */
  async pause() {
    if (!this.active) return;
    this.#wanted = 'pause';
    await this.#working;
  }

  async #openSlots() {
    for (const name of ['a', 'b', 'best']) this.#slots[name] = await openFile(this.#folder, `checkpoint.${name}`);
  }

  #closeSlots() {
    for (const name of Object.keys(this.#slots)) this.#slots[name].close();
    this.#slots = [];
  }

  #put(name, bytes) {
    const file = this.#slots[name];
    try {
      writeAll(file, bytes, 0);
      file.truncate(bytes.byteLength);
      file.flush();
    } catch (error) {
      throw storageFault(error);
    }
  }

  /** Trains until it is over or stopped; resolves when the first step is done. */
  async #train() {
    await this.#openSlots();
    this.kept.state = 'training';
    this.#wanted = null;
    this.#last = { saved: performance.now(), told: 0, images: 0, time: 0 };
    let begun;
    const first = new Promise((resolve, reject) => (begun = { resolve, reject }));
    const listener = {
      step: (text) => {
        this.#onStep(JSON.parse(text));
        begun.resolve();
      },
      validation: (text) => this.#onValidation(JSON.parse(text)),
      checkpoint: (bytes, best) => this.#onCheckpoint(bytes, best),
      stop: () => this.#wanted !== null || performance.now() - this.#last.saved > SAVE_EVERY,
    };
    this.#working = this.#loop(listener).then(begun.resolve, begun.reject);
    this.#tell.run();
    await first;
  }

  async #loop(listener) {
    try {
      let over = false;
      while (!over && this.#wanted === null) {
        over = await this.#run.train(listener);
        await this.#saved();
      }
      this.kept.state = over ? 'finishing' : 'paused';
      this.#closeSlots();
      if (over) await this.#finish();
    } catch (error) {
      this.#closeSlots();
      const { message, kind } = await this.#tell.known(error);
      this.kept.state = kind === 'lost' || kind === 'full' ? 'paused' : 'failed';
      this.kept.message = message;
      this.#free();
      if (kind === 'lost') this.#tell.lost(message);
      if (!this.kept.points.length) throw error;
    } finally {
      this.#working = null;
      this.#speed = this.#left = null;
      await this.#document.write(this.kept).catch(() => {});
      this.#tell.run();
    }
  }

  #onStep(report) {
    const now = performance.now();
    this.kept.step = report.step;
    const last = this.#last;
    if (last.time) {
      const rate = (1e3 * (report.images - last.images)) / Math.max(1, now - last.time);
      const stepTime = (now - last.time) / Math.max(1, report.step - last.step);
      if (now - last.time > 500) {
        this.#speed = this.#speed === null ? rate : 0.7 * this.#speed + 0.3 * rate;
        this.#left = (report.to_come * stepTime) / 1e3;
        Object.assign(last, { images: report.images, time: now, step: report.step });
      }
    } else {
      Object.assign(last, { images: report.images, time: now, step: report.step });
    }
    const point = {
      step: report.step, loss: report.loss, losses: Object.fromEntries(report.terms), accuracy: report.accuracy ?? null,
      validation: this.#validated,
    };
    this.#validated = null;
    this.#point(point);
    if (now - last.told >= TELL_EVERY) {
      last.told = now;
      this.#tell.step(point);
    }
  }

  /** Keeps a point of the curves; every second one where there are many. */
  #point(point) {
    const { points } = this.kept;
    points.push(point);
    if (points.length > POINTS) this.kept.points = points.filter((one, i) => i % 2 === 1 || one.validation !== null);
  }

  #onValidation(score) {
    const accuracy = (score.one_shot_pct + score.five_shot_pct) / 200;
    this.kept.score = { step: score.step, oneShot: score.one_shot_pct / 100, fiveShot: score.five_shot_pct / 100 };
    // The losses of the step come next; before the first step there are none.
    this.#validated = accuracy;
    if (score.step > 0) return;
    this.#validated = null;
    const point = { step: 0, loss: null, losses: {}, accuracy: null, validation: accuracy };
    this.#point(point);
    this.#tell.step(point);
  }

  #onCheckpoint(bytes, best) {
    if (best) {
      this.#put('best', bytes);
      this.kept.best = { step: this.kept.score?.step ?? this.kept.step };
      return;
    }
    const slot = this.kept.checkpoint?.slot === 'a' ? 'b' : 'a';
    this.#put(slot, bytes);
    this.kept.next = { slot, step: this.kept.step };
  }

  /** The checkpoint that was written counts from now on. */
  async #saved() {
    this.#last.saved = performance.now();
    if (this.kept.next) this.kept.checkpoint = this.kept.next;
    delete this.kept.next;
    await this.#document.write(this.kept);
  }

  /** The network of a run that is over is measured, kept, and used from now on. */
  async #finish() {
    const { kept } = this;
    const name = kept.best ? 'best' : kept.checkpoint.slot;
    const bytes = await readFile(this.#folder, `checkpoint.${name}`);
    const noted = await this.#run.network(this.#engine, bytes);
    this.#free();
    await keepNetwork(this.#tell.folder, 'trained', noted);
    kept.state = 'done';
    await this.#tell.trained(noted);
  }

  #free() {
    this.#run?.free();
    this.#run = null;
  }

  /** The file of the last checkpoint that was written whole; null where there is none. */
  async lastCheckpoint() {
    const { checkpoint } = this.kept ?? {};
    return checkpoint && (await this.#folder.getFileHandle(`checkpoint.${checkpoint.slot}`)).getFile();
  }

  /** The device is gone: what is on it is, too. */
  lose() {
    if (!this.active) this.#free();
  }

  /** Forgets the run. */
  async drop() {
    await this.pause();
    this.#free();
    this.kept = null;
    await this.#document.remove();
    for (const name of ['pixels', 'checkpoint.a', 'checkpoint.b', 'checkpoint.best']) await removeFile(this.#folder, name);
  }
}

// A run: what it trains on is kept beside its checkpoints, so that it goes on bit for bit after the page was closed, whatever
// happened to the pictures meanwhile.

import { Fault } from './fault.js';
import { Document, openFile, readFile, removeFile, replace, storageFault, writeAll } from './files.js';
import { startingNetwork } from './runs.js';
import { state, tell } from './state.js';
import { Turns } from './turns.js';

/** Milliseconds between checkpoints, and between reports to the page. */
const SAVE_EVERY = 20_000;
const TELL_EVERY = 250;
/** Points of the curves that are kept. */
const POINTS = 1500;

/** The files of a run beside its document. */
const FILES = ['pixels', 'checkpoint.a', 'checkpoint.b', 'checkpoint.best'];

export class Training {
  /**
   * What is kept: {from, origin, print, state, step, steps, config, settings, classes, labels, side, original, checkpoint, before,
   * points, ...}; `origin`, the network that it started from; `checkpoint` and `before`, the one before it: {slot, step}.
   */
  kept = null;
  /** Whether it was training when its device was lost, and should go on with another. */
  interrupted = false;
  /** How often it was told to pause or to end. */
  pauses = 0;
  #folder;
  #document;
  #finished;
  /** What begins, ends and continues a run goes one after the other. */
  #turns = new Turns();
  #run = null;
  #engine = null;
  #wanted = null;
  #last = { saved: 0, told: 0, images: 0, time: 0 };
  /** The score of the step whose losses come next. */
  #validated = null;
  #speed = null;
  #left = null;
  #slots = {};
  #working = null;

  /** `finished` is called when a run is over, after its network was kept. */
  static async open(finished) {
    const training = new Training();
    training.#folder = await state.folder.getDirectoryHandle('run', { create: true });
    training.#document = new Document(training.#folder, 'run');
    training.#finished = finished;
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

  /** Begins a run as `planned` has it, whose pictures and network it frees; resolves when the first step is done. */
  begin(from, run) {
    return this.#turns.do(() => this.#begin(from, run));
  }

  async #begin(from, { plan, pictures, start }) {
    const { set, ...rest } = pictures;
    try {
      if (this.active) throw new Fault('usage', 'A run is at work already: pause it first.');
      await this.#drop();
      this.kept = {
        from, origin: start?.origin ?? 'scratch', print: start?.print ?? null, state: 'training', step: 0, steps: plan.steps, config: plan.config, settings: plan.settings,
        ...rest, checkpoint: null, before: null, best: null, points: [],
      };
      await this.#keepPixels(set, rest.labels.length);
      this.#engine = state.device.need();
      // The function takes both and frees them.
      this.#run = await state.wasm.Run.open(this.#engine, set, plan.config, start?.network, undefined);
      this.kept.config = this.#run.config();
      await this.#document.write(this.kept);
    } catch (error) {
      for (const one of [set, start?.network]) if (one?.__wbg_ptr) one.free();
      // There is no run that could go on.
      if (!this.active) {
        await this.#drop();
        this.#told();
      }
      throw error;
    }
    await this.#train();
  }

  async #keepPixels(set, n) {
    const file = await openFile(this.#folder, 'pixels');
    try {
      let at = 0;
      for (let i = 0; i < n; i += 1) {
        const pixels = set.pixels(i);
        writeAll(file, pixels, at);
        at += pixels.length;
      }
      file.truncate(at);
      file.flush();
    } catch (error) {
      throw storageFault(error);
    } finally {
      file.close();
    }
  }

  /** The pictures that the run began with. */
  async #pictures() {
    const { side, labels, classes, original } = this.kept;
    const file = await openFile(this.#folder, 'pixels');
    const pixels = new Uint8Array(4 * side * side);
    const set = new state.wasm.Pictures(side, classes, original);
    try {
      if (file.getSize() !== pixels.length * labels.length) {
        throw new Fault('storage', 'The pictures of this run are not in the browser’s files any more: drop the run and begin another.');
      }
      labels.forEach((label, i) => {
        file.read(pixels, { at: i * pixels.length });
        set.add(pixels, label);
      });
      return set;
    } catch (error) {
      set.free();
      throw storageFault(error);
    } finally {
      file.close();
    }
  }

  /** Opens the run where its last checkpoint is; where that cannot be read, at the one before. */
  async #load() {
    const { config, checkpoint, before, origin, print } = this.kept;
    this.#engine = state.device.need();
    let failed = null;
    for (const one of checkpoint ? [checkpoint, before].filter(Boolean) : [null]) {
      const bytes = one && ((await readFile(this.#folder, `checkpoint.${one.slot}`)) ?? new Uint8Array());
      const network = one ? undefined : (await startingNetwork(origin, print))?.network;
      const set = await this.#pictures();
      try {
        this.#run = await state.wasm.Run.open(this.#engine, set, config, network, bytes ?? undefined);
        this.kept.checkpoint = one;
        return;
      } catch (error) {
        if (!['data', 'usage'].includes(error?.kind)) throw error;
        failed ??= error;
      }
    }
    throw failed;
  }

  /** Goes on; resolves when a step is done. It does nothing where it was paused since `pauses` had this value. */
  resume(pauses) {
    return this.#turns.do(() => this.#resume(pauses));
  }

  async #resume(pauses) {
    if (this.active || pauses !== this.pauses) return;
    if (!this.kept || this.kept.state === 'done') throw new Fault('usage', 'There is no run to go on with.');
    this.interrupted = false;
    if (!this.#run) await this.#load();
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
  pause() {
    this.pauses += 1;
    return this.#turns.do(() => this.#pause());
  }

  async #pause() {
    this.interrupted = false;
    if (!this.active) return;
    this.#wanted = 'pause';
    await this.#working;
    this.interrupted = false;
  }

  /** When it trains no more: a device that is gone ends it. */
  async settled() {
    await this.#working;
  }

  async #openSlots() {
    for (const name of ['a', 'b', 'best']) this.#slots[name] = await openFile(this.#folder, `checkpoint.${name}`);
  }

  #closeSlots() {
    for (const file of Object.values(this.#slots)) file.close();
    this.#slots = {};
  }

  /** Trains until it is over or stopped; resolves when the first step is done. */
  async #train() {
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
    this.#told();
    await first;
  }

  #told() {
    tell('run', { run: this.shown() });
  }

  async #loop(listener) {
    let over = false;
    try {
      await this.#openSlots();
      while (!over && this.#wanted === null) {
        over = await this.#run.train(listener);
        await this.#saved();
      }
      this.#closeSlots();
      if (over) await this.#finish();
      this.kept.state = over ? 'done' : 'paused';
    } catch (error) {
      over = false;
      this.#closeSlots();
      const { message, kind } = await state.device.known(error);
      this.kept.state = kind === 'lost' || kind === 'full' ? 'paused' : 'failed';
      this.kept.message = message;
      this.interrupted = kind === 'lost' && this.#wanted === null;
      this.#free();
      if (kind === 'lost') state.lost(message);
      if (!this.kept.points.length) throw error;
    } finally {
      // What cannot be written now is what was written before: it goes on from there.
      await this.#document.write(this.kept).catch(() => {});
      this.#working = null;
      this.#speed = this.#left = null;
      this.#told();
    }
    // It goes on in turn with others, who may wait for the end of this.
    if (over) this.#finished();
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
      this.#toldStep(point);
    }
  }

  #toldStep(point) {
    tell('step', { run: this.shown(), point });
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
    this.#toldStep(point);
  }

  #onCheckpoint(bytes, best) {
    if (best) {
      replace(this.#slots.best, bytes);
      this.kept.best = { step: this.kept.score?.step ?? this.kept.step };
      return;
    }
    const slot = this.kept.checkpoint?.slot === 'a' ? 'b' : 'a';
    replace(this.#slots[slot], bytes);
    this.kept.next = { slot, step: this.kept.step };
  }

  /** The checkpoint that was written counts from now on. */
  async #saved() {
    const { next, checkpoint, before } = this.kept;
    delete this.kept.next;
    this.#last.saved = performance.now();
    if (next) Object.assign(this.kept, { checkpoint: next, before: checkpoint });
    try {
      await this.#document.write(this.kept);
    } catch (error) {
      Object.assign(this.kept, { checkpoint, before });
      throw error;
    }
  }

  /** The network of a run that is over is measured and kept. */
  async #finish() {
    const { kept } = this;
    const bytes = await readFile(this.#folder, `checkpoint.${kept.best ? 'best' : kept.checkpoint.slot}`);
    const noted = await this.#run.network(this.#engine, bytes);
    this.#free();
    await state.networks.keep('trained', noted);
  }

  #free() {
    this.#run?.free();
    this.#run = null;
  }

  /** The bytes of the last checkpoint that was written whole; null where there is none. */
  async lastCheckpoint() {
    const { checkpoint } = this.kept ?? {};
    return checkpoint ? readFile(this.#folder, `checkpoint.${checkpoint.slot}`) : null;
  }

  /** The device is gone: what is on it is, too. */
  lose() {
    if (!this.active) this.#free();
  }

  /** Forgets the run. */
  drop() {
    this.pauses += 1;
    return this.#turns.do(async () => {
      await this.#drop();
      this.#told();
    });
  }

  async #drop() {
    await this.#pause();
    this.#free();
    this.kept = null;
    await this.#document.remove();
    for (const name of FILES) await removeFile(this.#folder, name);
  }
}

// One thing after the other, how far it is, and whether to stop it.

import { tell } from './state.js';

/** Milliseconds between reports of progress. */
export const TELL_EVERY = 150;

/** Work that goes one after the other, so that none sees half of another's. Work must not wait for other work in turn. */
export class Turns {
  #last = Promise.resolve();

  /** Does `work` after all that was given before; what it returns. */
  do(work) {
    const next = this.#last.catch(() => {}).then(work);
    this.#last = next;
    return next;
  }
}

const turns = new Turns();

/** Work on pictures and networks. */
export const inTurn = (work) => turns.do(work);

const cancelled = new Set();

/** Stops what `progress` tells of. */
export const cancel = (what) => cancelled.add(what);

/** Returns a function of what is done, and perhaps another total, that tells it now and then and says whether to go on. */
export function progress(what, total) {
  let last = 0;
  cancelled.delete(what);
  return (done, all = total) => {
    const now = performance.now();
    if (now - last > TELL_EVERY || done >= all) {
      last = now;
      tell('progress', { what, done, total: all });
    }
    return !cancelled.has(what);
  };
}

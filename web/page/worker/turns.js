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

const cancels = new Map();

/** Stops what `progress` tells of, and what waits its turn to begin with it. */
export const cancel = (what) => cancels.set(what, cancelsOf(what) + 1);

/** How often `what` was cancelled so far: read when it is asked for, so that it may be cancelled before it begins. */
export const cancelsOf = (what) => cancels.get(what) ?? 0;

/**
 * Returns a function of what is done, and perhaps another total, that tells it now and then and says whether to go on:
 * it was not cancelled `since`.
 */
export function progress(what, total, since = cancelsOf(what)) {
  let last = 0;
  return (done, all = total) => {
    const now = performance.now();
    if (now - last > TELL_EVERY || done >= all) {
      last = now;
      tell('progress', { what, done, total: all });
    }
    return cancelsOf(what) === since;
  };
}

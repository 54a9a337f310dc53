// What the page knows, as the worker told it, and who wants to know of changes.

export const state = {
  ready: false, gpu: null, why: null, networks: [], network: null, unknown: 0.05, storage: null, run: null,
  project: { classes: [], pictures: 0, undo: null },
};

/** Milliseconds between two drawings of the same thing. */
const PACE = 250;
const watchers = [];

/** Calls `draw` after a change of one of the `keys`, at once or where that is too often a little later. */
export function watch(keys, draw) {
  watchers.push({ keys, draw, last: -PACE, timer: null });
}

function run(watcher) {
  watcher.timer = null;
  watcher.last = performance.now();
  watcher.draw(state);
}

export function update(changes) {
  Object.assign(state, changes);
  const keys = Object.keys(changes);
  for (const watcher of watchers) {
    if (watcher.timer !== null || !watcher.keys.some((key) => keys.includes(key))) continue;
    const wait = watcher.last + PACE - performance.now();
    // Each in a task of its own, so that none is long.
    watcher.timer = setTimeout(run, Math.max(0, wait), watcher);
  }
}

export const classById = (id) => state.project.classes.find((one) => one.id === id);
export const className = (id) => classById(id)?.name ?? '–';

/** A colour for each class, far from those of its neighbours: a hue in degrees. */
export function hue(id) {
  const at = state.project.classes.findIndex((one) => one.id === id);
  return Math.round((at * 137.508 + 250) % 360);
}

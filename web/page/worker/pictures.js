// Pictures on their way into classes, and into rows of the network in use.

import { Fault, described, isStop } from './fault.js';
import { isHidden, isPictureName } from '../names.js';
import { state, trouble } from './state.js';
import { clearExports } from './transfer.js';
import { cancelsOf, inTurn, progress } from './turns.js';
import { forget, joined } from './answers.js';

/** Keeps the rows of [id, pixels] pairs. */
async function embedSquares(embedding, squares) {
  if (!squares.length) return;
  const rows = await embedding.embed(joined(squares.map(([, pixels]) => pixels)));
  squares.forEach(([id], i) => embedding.keep(id, rows.slice(i * embedding.width, (i + 1) * embedding.width)));
  forget();
}

/** For each name of a file the class that its folders say; null where it lies in none, or is no picture by its name. */
export function folderClasses(names) {
  // Notes beside class folders make no class of what is around them.
  const pictures = names.map((_, i) => i).filter((i) => isPictureName(names[i]));
  const classes = names.map(() => null);
  JSON.parse(state.wasm.folder_classes(pictures.map((i) => names[i]))).forEach((name, at) => { classes[pictures[at]] = name; });
  return classes;
}

/**
 * Adds items {file, name, class} or {name, class, read}, where `read()` gives the file; in turn. A class of null is the one
 * that the folders of all such names say.
 */
export async function addPictures(items, since) {
  const { project, networks } = state;
  const on = progress('adding', items.length, since);
  const embedding = networks.current;
  const refused = [];
  let [added, done] = [0, 0];
  let waiting = [];
  // What embedding them fails with keeps none from being added: they are embedded later.
  let failed = embedding ? null : { kind: 'device' };
  const embedNow = async () => {
    const ids = waiting;
    waiting = [];
    if (failed || !ids.length) return;
    try {
      const squares = [];
      for (const id of ids) squares.push([id, await project.pixels(id, embedding.side)]);
      await embedSquares(embedding, squares);
    } catch (error) {
      if (isStop(error)) throw error;
      failed = await state.device.known(error);
    }
  };
  const unsorted = items.filter((item) => (item.class ?? null) === null);
  const byFolder = new Map(folderClasses(unsorted.map(({ name }) => name)).map((name, i) => [unsorted[i], name]));
  const add = async (item) => {
    const { name } = item;
    if (isHidden(name)) throw new Fault('data', `${name} is hidden, or a file of the system.`);
    const target = item.class ?? byFolder.get(item);
    if (target === null && !isPictureName(name)) throw new Fault('data', `${name} is no picture by the end of its name.`);
    if (target === null) throw new Fault('data', `${name} lies in no class: add it to a class, or give a folder for each class.`);
    const file = item.file ?? (await item.read());
    const into = () => project.add(file, name.split('/').at(-1), target, embedding?.side ?? null);
    try {
      return await into();
    } catch (error) {
      // Room that deleted pictures still take, and what can be made anew.
      if (error.kind !== 'full') throw error;
      await clearExports();
      if (!(await project.reclaim(embedding ? [embedding.side] : []))) throw error;
      return into();
    }
  };
  try {
    for (const item of items) {
      if (!on(done)) break;
      try {
        waiting.push(await add(item));
        added += 1;
        project.touch();
      } catch (error) {
        if (error.kind === 'full' || isStop(error)) throw error;
        refused.push({ name: item.name, why: described(error).message });
      }
      if (waiting.length >= (embedding?.batch ?? Infinity)) await embedNow();
      done += 1;
    }
    on(done);
    // Others may have been added without.
    if (!failed) embedLater();
  } finally {
    await embedNow();
    forget();
    await project.flush();
    await project.save();
  }
  if (failed && embedding) tellFailed(failed);
  return { added, refused };
}

/** Says what work failed with that nobody waits for. */
export async function tellLater(error) {
  // It ends all, and not this alone.
  if (isStop(error)) throw error;
  tellFailed(await state.device.known(error));
}

function tellFailed({ message, kind }) {
  if (kind === 'lost') state.lost(message);
  else trouble(message);
}

let under = null;

/** Embeds the pictures that the network in use has not seen, a few in each turn. */
export function embedMissing(since = cancelsOf('embedding')) {
  under ??= embedAll(since).finally(() => {
    under = null;
  });
  return under;
}

async function embedAll(since) {
  const { project, networks } = state;
  const unread = new Set();
  const on = progress('embedding', 0, since);
  let done = 0;
  const part = async () => {
    const embedding = networks.current;
    if (!embedding) return 0;
    const missing = project.list().map(({ id }) => id).filter((id) => !embedding.has(id) && !unread.has(id));
    const squares = [];
    for (const id of missing.slice(0, embedding.batch)) {
      try {
        squares.push([id, await project.pixels(id, embedding.side)]);
      } catch (error) {
        if (isStop(error)) throw error;
        unread.add(id);
      }
    }
    await embedSquares(embedding, squares);
    const now = Math.min(missing.length, embedding.batch);
    done += now;
    if (missing.length && !on(done, done - now + missing.length)) {
      if (missing.length > now) trouble(`Pictures that are not embedded yet: ${missing.length - now}. No answer counts them; choose the network in use again to go on.`);
      return 0;
    }
    return missing.length - now;
  };
  try {
    while ((await inTurn(part)) > 0);
  } finally {
    if (done) on(done, done);
  }
  if (unread.size) trouble(`Pictures that could not be read from the browser’s files: ${unread.size}. No answer counts them; delete them and add them again.`);
}

/** The same, where nobody waits for it. */
export function embedLater() {
  embedMissing().catch(tellLater);
}

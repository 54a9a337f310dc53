// The page's end of PROTOCOL.md: calls to the worker, and its events.

// A worker from a blob is held to the policy of this document; one from a server only to what that server says.
const source = `import ${JSON.stringify(new URL('worker.js', import.meta.url).href)};`;
const worker = new Worker(URL.createObjectURL(new Blob([source], { type: 'text/javascript' })), { type: 'module' });
const waiting = new Map();
/** Calls from before the worker listens: it says when it does. */
let early = [];
const listeners = new Map();
let next = 1;

/** An error of the worker: a sentence that can be shown, and its kind. */
export class CallError extends Error {
  constructor({ message, kind }) {
    super(message);
    this.kind = kind;
  }
}

/** @returns {Promise<any>} what the worker answers to `name` with `args`. */
export function call(name, args = {}) {
  return new Promise((resolve, reject) => {
    const id = next++;
    waiting.set(id, { resolve, reject });
    const message = { id, call: name, args };
    if (early) early.push(message);
    else worker.postMessage(message);
  });
}

/** Ends the worker, after it has written what there is to write. */
export function leave() {
  if (early) worker.terminate();
  else call('leave').catch(() => worker.terminate());
}

/** Calls `listener` with the fields of each such event. */
export function on(event, listener) {
  if (!listeners.has(event)) listeners.set(event, []);
  listeners.get(event).push(listener);
}

worker.onmessage = ({ data }) => {
  if (data.event === 'listening') {
    for (const message of early ?? []) worker.postMessage(message);
    early = null;
    return;
  }
  if (data.event) {
    for (const listener of listeners.get(data.event) ?? []) listener(data);
    return;
  }
  const { resolve, reject } = waiting.get(data.id) ?? {};
  waiting.delete(data.id);
  if (data.error) reject?.(new CallError(data.error));
  else resolve?.(data.result);
};

/** It could not be loaded, or has thrown where it answers to nobody. */
worker.onerror = (event) => {
  event.preventDefault();
  const message = event.message || 'The worker of the page could not be loaded.';
  for (const { reject } of waiting.values()) reject(new CallError({ message, kind: 'internal' }));
  waiting.clear();
  for (const listener of listeners.get('broken') ?? []) listener({ message });
};

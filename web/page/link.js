// The page's end of PROTOCOL.md: calls to the worker, and its events.

const worker = new Worker(new URL('worker.js', import.meta.url), { type: 'module' });
const waiting = new Map();
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
    worker.postMessage({ id, call: name, args });
  });
}

/** Calls `listener` with the fields of each such event. */
export function on(event, listener) {
  if (!listeners.has(event)) listeners.set(event, []);
  listeners.get(event).push(listener);
}

worker.onmessage = ({ data }) => {
  if (data.event) {
    for (const listener of listeners.get(data.event) ?? []) listener(data);
    return;
  }
  const { resolve, reject } = waiting.get(data.id) ?? {};
  waiting.delete(data.id);
  if (data.error) reject?.(new CallError(data.error));
  else resolve?.(data.result);
};

worker.onerror = (event) => {
  event.preventDefault();
  for (const { reject } of waiting.values()) reject(new CallError({ message: event.message || 'worker.js', kind: 'internal' }));
  waiting.clear();
  for (const listener of listeners.get('broken') ?? []) listener(event);
};

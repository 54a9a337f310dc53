// What the parts of the worker share, and what they tell the page unasked.

/** Set by `open`: the module of the engine, the folder of the page's files, and the parts that rest on them. */
export const state = { wasm: null, folder: null, project: null, device: null, networks: null, training: null };

export const tell = (event, fields = {}) => postMessage({ event, ...fields });

/** Something went wrong that is the answer to no call. */
export const trouble = (message) => tell('trouble', { message });

/** An error with a whole sentence that can be shown, and its kind (see PROTOCOL.md). */
export class Fault extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

/** Whether an error is the end of the module of the engine, of which nothing can be trusted then. */
export const isStop = (error) => error instanceof WebAssembly.RuntimeError;

/** What an error is for the page. A fault of the engine carries its kind; a module that stopped has none. */
export function described(error) {
  if (error?.kind) return { message: sentence(error.message), kind: error.kind };
  if (isStop(error)) {
    return { message: `The engine stopped (${error.message}). Load the page again; what was stored is still there.`, kind: 'internal' };
  }
  return { message: sentence(String(error?.message ?? error)), kind: 'internal' };
}

/** With a capital, but for a name that it begins with, and a full stop. */
function sentence(text) {
  const begun = text.replace(/^[a-z]+(?=[\s,;]|$)/, (word) => word.charAt(0).toUpperCase() + word.slice(1));
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

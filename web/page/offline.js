// The service worker, which keeps the files of the page.

const can = 'serviceWorker' in navigator && location.protocol.startsWith('http');
/** Milliseconds after which the page goes on with the version that it has. */
const PATIENCE = 3000;

/** Takes a new version that was fetched since the last load: the page is loaded again then, before anything is opened. */
export async function newVersion() {
  if (!can) return false;
  const waiting = await navigator.serviceWorker.getRegistration().then((found) => found?.waiting, () => null);
  if (!waiting) return false;
  const taken = new Promise((resolve) => {
    navigator.serviceWorker.addEventListener('controllerchange', () => resolve(true), { once: true });
    setTimeout(resolve, PATIENCE, false);
  });
  waiting.postMessage('take over');
  if (!(await taken)) return false;
  location.reload();
  return true;
}

export function keepOffline() {
  if (can) navigator.serviceWorker.register('sw.js').catch(() => {});
}

// The service worker, which keeps the files of the page.

/**
 * Registers it once all files of the page are loaded. A new version takes over when it is fetched whole: what is loaded
 * goes on, and the next load is of the new version.
 */
export async function keepOffline() {
  if (!('serviceWorker' in navigator && location.protocol.startsWith('http'))) return;
  const registration = await navigator.serviceWorker.register('sw.js');
  const takeOver = () => registration.waiting?.postMessage('take over');
  takeOver();
  registration.addEventListener('updatefound', () => registration.installing?.addEventListener('statechange', takeOver));
}

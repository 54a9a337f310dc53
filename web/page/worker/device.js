// The device of the browser, and how it ends.

import { Fault, described } from './fault.js';

/** Milliseconds in which a device that refuses something says that it is gone, where that is why, and between two looks. */
const LAST_WORDS = 3000;
const LOOK = 100;

export class Device {
  /** None where there is no WebGPU; `why` says why. */
  engine = null;
  why = null;
  /** What the browser says of its adapter, which is often little. */
  #adapter = {};

  async open(wasm) {
    this.engine?.free();
    this.engine = null;
    this.why = null;
    if (!navigator.gpu) {
      this.why = 'this browser has no WebGPU, or it is switched off.';
      return;
    }
    try {
      const { vendor = '', architecture = '', device = '', description = '' } = (await navigator.gpu.requestAdapter())?.info ?? {};
      this.#adapter = { vendor, architecture, device, description };
      this.engine = await wasm.Engine.open(vendor);
    } catch (error) {
      this.why = described(error).message;
    }
  }

  /** The engine, for what cannot be done without. */
  need() {
    if (!this.engine) throw new Fault('device', `This needs WebGPU: ${this.why ?? 'there is no device'}`);
    return this.engine;
  }

  /** That the browser has taken the device away, as a fault; null where it has not. */
  loss() {
    try {
      this.engine?.check();
      return null;
    } catch (error) {
      const fault = described(error);
      return fault.kind === 'lost' ? fault : null;
    }
  }

  /** What the page shows; null where there is none. */
  shown() {
    if (!this.engine) return null;
    const { vendor, architecture, device, description } = this.#adapter;
    const name = description || [vendor, architecture, device].filter(Boolean).join(' ') || 'a device that the browser does not name';
    return { ...JSON.parse(this.engine.about()), ...this.#adapter, name };
  }

  /** An error for the page. A device that refuses something may say a moment later that it is gone. */
  async known(error) {
    const fault = described(error);
    if (fault.kind !== 'device' || !this.engine) return fault;
    for (let waited = 0; waited < LAST_WORDS && !this.loss(); waited += LOOK) await new Promise((resolve) => setTimeout(resolve, LOOK));
    return this.loss() ?? fault;
  }
}

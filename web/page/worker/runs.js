// What a run is made of: its pictures, the network that it starts from, its settings.

import { Fault } from './fault.js';
import { state } from './state.js';
import { progress } from './turns.js';

/** The network that a run starts from, opened: {network, name, origin, print}; null from scratch. As `Networks.start`. */
export async function startingNetwork(from, print = null) {
  const start = await state.networks.start(from, print);
  if (!start) return null;
  const name = start.name === 'shipped' ? 'shipped:pictures' : `${start.name}.safetensors`;
  const network = await state.wasm.Network.open(state.device.need(), name, start.bytes);
  return { network, name, origin: start.name, print: start.print };
}

/** Pictures of the whole project at a side: {set, labels, classes, side, original}; free the set. */
async function picturesAt(side) {
  const { project, wasm } = state;
  const list = project.list();
  const own = project.classes.filter((one) => one.pictures.length);
  const number = new Map(own.map((one, i) => [one.id, i]));
  const [classes, original] = [own.map((one) => one.name), project.middleSide()];
  const labels = list.map((picture) => number.get(picture.class));
  const on = progress('preparing', list.length);
  const set = new wasm.Pictures(side, classes, original);
  try {
    for (const [i, { id }] of list.entries()) {
      set.add(await project.pixels(id, side), labels[i]);
      on(i + 1);
    }
  } catch (error) {
    set.free();
    throw error;
  }
  return { set, labels, classes, side, original };
}

/** A run as it would be: {plan, pictures, start}; free the set of the pictures and the network. */
export async function planned(from, steps, seed) {
  const { device, project, wasm } = state;
  const engine = device.need();
  for (const [what, number] of [['number of steps', steps ?? 0], ['seed', seed ?? 0]]) {
    if (!(Number.isInteger(number) && number >= 0 && number < 2 ** 32)) throw new Fault('usage', `The ${what} is a whole number from 0 to ${2 ** 32 - 1}.`);
  }
  if (project.classes.filter((one) => one.pictures.length).length < 2) {
    throw new Fault('usage', 'Training tells classes apart: give two classes with pictures, or more.');
  }
  const start = await startingNetwork(from);
  let pictures = null;
  try {
    const side = start ? JSON.parse(start.network.about()).side : wasm.side_for(project.middleSide(), engine.software());
    pictures = await picturesAt(side);
    const plan = JSON.parse(wasm.plan_run(pictures.set, start?.network.again(), start?.name ?? '', steps ?? 0, seed ?? 0, engine.software()));
    return { plan, pictures, start };
  } catch (error) {
    pictures?.set.free();
    start?.network.free();
    throw error;
  }
}

// The camera: a live picture, and frames of it as files.

import { S } from './strings.js';
import { attempt, button, h, say, setText, toast } from './dom.js';
import { openDialog } from './dialog.js';
import { addQuietly } from './add.js';
import { state } from './state.js';

const LONGEST = 640;
/** Milliseconds between pictures while the button is held. */
const EVERY = 200;

/** A camera that shows itself in `video`. */
export class Camera {
  video = h('video', { class: 'live', muted: true, playsinline: true, autoplay: true, 'aria-label': S.cameraPicture });
  #stream = null;
  #front = false;
  #canvas = document.createElement('canvas');

  /** Opens it; throws a sentence where that is refused. */
  async open() {
    if (!navigator.mediaDevices?.getUserMedia) throw new Error(S.noCamera);
    this.close();
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia({
        video: { facingMode: this.#front ? 'user' : 'environment', width: { ideal: 1280 }, height: { ideal: 720 } },
      });
    } catch (error) {
      throw new Error(error.name === 'NotAllowedError' ? S.cameraRefused : error.name === 'NotFoundError' ? S.noCamera : S.cameraFailed(error.message));
    }
    this.video.muted = true;
    this.video.srcObject = this.#stream;
    this.video.classList.toggle('mirror', this.#stream.getVideoTracks()[0]?.getSettings().facingMode === 'user');
    await this.video.play();
  }

  get isOpen() {
    return this.#stream !== null;
  }

  /** The other camera, where there is one. */
  async turn() {
    this.#front = !this.#front;
    await this.open();
  }

  close() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = null;
    this.video.srcObject = null;
  }

  /** @returns {Promise<File|null>} what it sees now. */
  async take() {
    const { videoWidth: width, videoHeight: height } = this.video;
    if (!width || !this.isOpen) return null;
    const scale = Math.min(1, LONGEST / Math.max(width, height));
    this.#canvas.width = Math.round(width * scale);
    this.#canvas.height = Math.round(height * scale);
    this.#canvas.getContext('2d').drawImage(this.video, 0, 0, this.#canvas.width, this.#canvas.height);
    const blob = await new Promise((resolve) => this.#canvas.toBlob(resolve, 'image/jpeg', 0.92));
    return blob && new File([blob], `camera-${Date.now()}.jpg`, { type: 'image/jpeg' });
  }
}

/** A dialog that takes pictures into a class, several a second while the button is held. */
export async function cameraDialog(id) {
  const camera = new Camera();
  const one = state.project.classes.find((own) => own.id === id);
  let taken = 0;
  let timer = null;
  let waiting = [];
  let sending = false;
  const counter = h('p', { class: 'hint', text: S.holdHint });
  const send = async () => {
    if (sending || !waiting.length) return;
    sending = true;
    try {
      while (waiting.length) {
        const some = waiting;
        waiting = [];
        await addQuietly(some, id);
      }
    } catch (error) {
      stop();
      toast(error.message, true);
    } finally {
      sending = false;
    }
  };
  const take = async () => {
    const file = await camera.take();
    if (!file) return;
    taken += 1;
    waiting.push(file);
    setText(counter, S.taken(taken));
    send();
  };
  const begin = () => {
    if (timer !== null) return;
    take();
    timer = setInterval(take, EVERY);
    hold.classList.add('on');
  };
  const stop = () => {
    if (timer === null) return;
    clearInterval(timer);
    timer = null;
    hold.classList.remove('on');
    say(S.taken(taken));
  };
  const hold = h('button', { type: 'button', class: 'primary shutter', text: S.hold });
  const isKey = ({ key }) => key === ' ' || key === 'Enter';
  hold.addEventListener('pointerdown', begin);
  for (const end of ['pointerup', 'pointerleave', 'pointercancel', 'blur']) hold.addEventListener(end, stop);
  hold.addEventListener('contextmenu', (event) => event.preventDefault());
  hold.addEventListener('keydown', (event) => {
    if (!isKey(event)) return;
    event.preventDefault();
    begin();
  });
  hold.addEventListener('keyup', stop);
  // A click without a pointer or key before it: from assistive technology.
  hold.addEventListener('click', (event) => event.detail === 0 && timer === null && event.isTrusted && !event.pointerType && take());
  await camera.open();
  openDialog(S.cameraInto(one?.name ?? ''), [camera.video, counter, h('div', { class: 'row end' }, button(S.turnCamera, () => camera.turn()), hold)], {
    closed: () => {
      stop();
      camera.close();
      attempt(send);
    },
  });
  hold.focus();
}

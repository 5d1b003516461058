// The microphone, and what is said into it.

import { byId, clock, element, offerLanguages, percent, reason, seconds, show } from './page.js';
import { Session } from './session.js';
import { Trace } from './trace.js';

// What recognisers hear. A browser that can't capture at another rate than its device's sends that one, and the gateway
// resamples.
const SAMPLE_RATE = 16_000;
// How much may wait for a gateway that is away; then the audio ends. Ten minutes are 20 MB.
const KEPT_SECONDS = 600;
const MICROPHONE = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: true };

const [start, stop, copy, language] =
  ['live-start', 'live-stop', 'live-copy', 'live-language'].map(byId);
const [finals, partial, empty, error] = ['live-finals', 'live-partial', 'live-empty', 'live-error'].map(byId);
const trace = new Trace(byId('live-level'));

async function prepare(options) {
  const context = new AudioContext(options);
  await context.audioWorklet.addModule('/console/capture.js');
  return context;
}

// The microphone while it is on: `end` gives its last samples and switches it off.
async function capture(onSamples) {
  // Before the microphone is on: nothing of what is said then should be missed.
  let context = await prepare({ sampleRate: SAMPLE_RATE });
  let [stream, source] = [];
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: MICROPHONE });
    source = context.createMediaStreamSource(stream);
  } catch (failure) {
    await context.close();
    if (!stream) throw failure;
    context = await prepare();
    source = context.createMediaStreamSource(stream);
  }
  const worklet = new AudioWorkletNode(context, 'capture', { channelCount: 1, channelCountMode: 'explicit' });
  const ended = new Promise((resolve) => {
    worklet.port.onmessage = ({ data }) => (data ? onSamples(data) : resolve());
  });
  // It is silent; but what leads nowhere is not run.
  source.connect(worklet).connect(context.destination);
  await context.resume();
  const end = async () => {
    worklet.port.postMessage('end');
    await ended;
    stream.getTracks().forEach((track) => track.stop());
    await context.close();
  };
  // The microphone may be unplugged, or taken away.
  return { sampleRate: context.sampleRate, end, track: stream.getAudioTracks()[0] };
}

function peak(samples) {
  return samples.reduce((highest, sample) => Math.max(highest, Math.abs(sample)), 0) / 32768;
}

export class Live {
  #account;
  #session = null;
  #microphone = null;
  #rate = SAMPLE_RATE;
  #ending = null;

  constructor() {
    offerLanguages(language);
    byId('live-insecure').hidden = window.isSecureContext;
    start.disabled = !window.isSecureContext;
    start.addEventListener('click', () => this.#begin());
    stop.addEventListener('click', () => (this.#ending ? this.#session?.abandon() : this.#finish()));
    copy.addEventListener('click', () => this.#copy());
  }

  open(account) {
    this.#account = account;
    this.#clear();
  }

  close() {
    this.#account = null;
    this.#session?.abandon();
    this.#clear();
  }

  #clear() {
    finals.replaceChildren();
    trace.clear();
    show(partial);
    show(error);
    this.#tell('');
    empty.hidden = false;
    copy.disabled = true;
    this.#figures({ accepted: 0, received: 0, final: 0, reconnects: 0 });
  }

  async #begin() {
    this.#clear();
    start.disabled = true;
    this.#tell('waiting for permission to use the microphone');
    const [account, early] = [this.#account, []];
    try {
      this.#microphone = await capture((samples) => {
        trace.push(peak(samples));
        if (this.#session) this.#session.push(samples);
        else early.push(samples);
        if (this.#session && this.#kept() > KEPT_SECONDS) this.#finish();
      });
    } catch (failure) {
      this.#tell('');
      show(error, `Microphone unavailable: ${failure.message}`);
      start.disabled = false;
      return;
    }
    // The question may be answered when nobody is signed in any more.
    if (account !== this.#account) {
      this.#microphone.end();
      start.disabled = false;
      return;
    }
    this.#rate = this.#microphone.sampleRate;
    this.#microphone.track.addEventListener('ended', () => this.#finish());
    this.#session = new Session(account, { sampleRate: this.#rate, language: language.value }, {
      partial: (text) => this.#showPartial(text),
      final: (final) => this.#commit(final),
      change: () => this.#progress(),
      end: (failure) => this.#end(failure),
    });
    early.forEach((samples) => this.#session.push(samples));
    [start.hidden, stop.hidden, stop.textContent, language.disabled] = [true, false, 'Stop', true];
    stop.focus();
    this.#progress();
  }

  // The audio ends; what was said is still recognised.
  #finish() {
    this.#ending ??= this.#microphone.end().then(() => this.#session?.finish());
    stop.textContent = 'Discard pending audio';
    this.#progress();
  }

  #end(failure) {
    const session = this.#session;
    this.#session = null;
    // Where the session failed, the microphone is still on.
    if (!this.#ending) this.#microphone.end();
    [this.#microphone, this.#ending] = [null, null];
    const focused = document.activeElement === stop;
    [start.hidden, start.disabled, stop.hidden, language.disabled] = [false, false, true, false];
    if (focused) start.focus();
    show(partial);
    show(error, failure && reason(failure));
    const complete = session.final === session.accepted;
    this.#tell(failure ? 'failed' : complete ? 'complete' : 'discarded', failure ? 'bad' : 'good');
    this.#figures(session);
  }

  #showPartial(text) {
    empty.hidden = true;
    show(partial, text);
  }

  #commit({ start: from, text, confidence }) {
    show(partial);
    if (!text.trim()) return;
    empty.hidden = true;
    copy.disabled = false;
    const sure = confidence === undefined ? '' : percent(confidence);
    finals.append(element('li', {},
      element('time', { textContent: clock(from / this.#rate) }),
      element('span', { className: 'words', textContent: text.trim() }),
      element('span', { className: 'sure', textContent: sure, title: sure && `confidence ${sure}` })));
    const box = finals.parentElement;
    box.scrollTop = box.scrollHeight;
  }

  #progress() {
    const session = this.#session;
    if (!session) return;
    this.#figures(session);
    if (session.state === 'reconnecting') this.#tell('reconnecting, audio is buffered', 'busy');
    else if (session.state === 'connecting') this.#tell('connecting', 'busy');
    else if (this.#ending) this.#tell('finishing', 'busy');
    else this.#tell('listening', 'good');
  }

  #kept() {
    return (this.#session.accepted - this.#session.final) / this.#rate;
  }

  #figures({ accepted, received, final, reconnects }) {
    byId('live-accepted').textContent = seconds(accepted / this.#rate);
    byId('live-received').textContent = seconds(received / this.#rate);
    byId('live-final').textContent = seconds(final / this.#rate);
    byId('live-kept').textContent = seconds((accepted - final) / this.#rate);
    byId('live-reconnects').textContent = reconnects;
  }

  // A screen reader says it whenever it changes: so only then.
  #tell(text, mood = '') {
    const state = byId('live-state');
    if (state.textContent !== text) state.textContent = text;
    state.dataset.mood = mood;
  }

  async #copy() {
    const text = [...finals.querySelectorAll('.words')].map((words) => words.textContent).join('\n');
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = 'Copied';
    } catch {
      copy.textContent = 'Copy failed';
    }
    setTimeout(() => { copy.textContent = 'Copy'; }, 1_500);
  }
}

// Text, and what it sounds like: played while it arrives.

import { byId, reason, seconds, show } from './page.js';
import { Trace } from './trace.js';

// What `/tts` answers: 16-bit big-endian samples, one channel.
const SAMPLE_RATE = 24_000;
// How far ahead of the clock the first samples are put, in seconds: what comes late would be cut.
const LEAD = 0.05;
// Levels a second.
const LEVELS = 20;

const [form, text, voice, tempo, start, stop, save, error] = ['speech-form', 'speech-text', 'speech-voice',
  'speech-tempo', 'speech-start', 'speech-stop', 'speech-save', 'speech-error'].map(byId);
const state = byId('speech-state');
const trace = new Trace(byId('speech-level'));

// Whole samples out of pieces that may end within one.
function reader() {
  let rest = new Uint8Array(0);
  return (piece) => {
    const bytes = new Uint8Array(rest.length + piece.length);
    bytes.set(rest);
    bytes.set(piece, rest.length);
    const samples = new Int16Array(bytes.length >> 1);
    const view = new DataView(bytes.buffer);
    for (let index = 0; index < samples.length; index += 1) samples[index] = view.getInt16(2 * index);
    rest = bytes.slice(2 * samples.length);
    return samples;
  };
}

// Plays pieces one behind the other.
class Player {
  #context = new AudioContext({ sampleRate: SAMPLE_RATE });
  #analyser = this.#context.createAnalyser();
  #end = 0;
  #last = null;
  #pieces = []; // { at, length }: the time of the context at which a piece begins, and its samples
  #over = false;
  #window = new Float32Array(this.#analyser.fftSize);

  constructor() {
    this.#analyser.connect(this.#context.destination);
  }

  push(samples) {
    const buffer = this.#context.createBuffer(1, samples.length, SAMPLE_RATE);
    buffer.getChannelData(0).set(Float32Array.from(samples, (sample) => sample / 32768));
    const source = new AudioBufferSourceNode(this.#context, { buffer });
    source.connect(this.#analyser);
    const at = Math.max(this.#end, this.#context.currentTime + (this.#end ? 0 : LEAD));
    source.start(at);
    this.#pieces.push({ at, length: samples.length });
    this.#end = at + buffer.duration;
    this.#last = new Promise((resolve) => { source.onended = resolve; });
  }

  // Until the last sample has sounded.
  async played() {
    await this.#last;
    // The clock may lag a block of samples behind the end of the last piece.
    this.#over = true;
  }

  // How much of the pieces has sounded, in seconds. The silence before a late piece is not a part of it.
  get position() {
    const now = this.#over ? Infinity : this.#context.currentTime;
    const sounded = ({ at, length }) => Math.max(0, Math.min((now - at) * SAMPLE_RATE, length));
    return this.#pieces.reduce((sum, piece) => sum + sounded(piece), 0) / SAMPLE_RATE;
  }

  get peak() {
    this.#analyser.getFloatTimeDomainData(this.#window);
    return this.#window.reduce((highest, sample) => Math.max(highest, Math.abs(sample)), 0);
  }

  close() {
    return this.#context.close();
  }
}

// A WAV file of these pieces.
function wav(pieces) {
  const length = 2 * pieces.reduce((sum, piece) => sum + piece.length, 0);
  const header = new DataView(new ArrayBuffer(44));
  const name = (at, letters) => [...letters].forEach((letter, index) => {
    header.setUint8(at + index, letter.charCodeAt(0));
  });
  name(0, 'RIFF');
  header.setUint32(4, 36 + length, true);
  name(8, 'WAVEfmt ');
  header.setUint32(16, 16, true);
  header.setUint16(20, 1, true); // PCM
  header.setUint16(22, 1, true); // one channel
  header.setUint32(24, SAMPLE_RATE, true);
  header.setUint32(28, 2 * SAMPLE_RATE, true);
  header.setUint16(32, 2, true);
  header.setUint16(34, 16, true);
  name(36, 'data');
  header.setUint32(40, length, true);
  return new Blob([header, ...pieces], { type: 'audio/wav' });
}

export class Speech {
  #account;
  #request = null;
  #pieces = [];

  constructor() {
    const showTempo = () => { byId('speech-tempo-value').textContent = `${Number(tempo.value).toFixed(2)}×`; };
    tempo.addEventListener('input', showTempo);
    // A browser that reloads a form keeps what was set.
    showTempo();
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#speak();
    });
    stop.addEventListener('click', () => this.#request?.abort());
    save.addEventListener('click', () => this.#save());
  }

  async open(account) {
    this.#account = account;
    this.#clear();
    try {
      const { voices } = await account.json('/console/voices');
      const options = voices.map(({ name, language, quality }) => new Option(`${name}, ${language}, ${quality}`, name));
      voice.replaceChildren(new Option('Automatic, by the language of the text', ''), ...options);
    } catch (failure) {
      show(error, reason(failure));
    }
  }

  close() {
    this.#request?.abort();
    this.#clear();
  }

  #clear() {
    this.#pieces = [];
    save.disabled = true;
    trace.clear();
    show(error);
    state.textContent = '';
    byId('speech-first').textContent = '–';
    this.#figures(0, 0);
  }

  async #speak() {
    this.#clear();
    const request = new AbortController();
    this.#request = request;
    [start.hidden, stop.hidden] = [true, false];
    stop.focus();
    state.textContent = 'synthesising';
    // Made while the click still counts: a page may not make a sound by itself.
    const player = new Player();
    const levels = setInterval(() => {
      trace.push(player.peak);
      this.#figures(this.#received(), player.position);
    }, 1_000 / LEVELS);
    try {
      await this.#play(player, request.signal);
      state.textContent = 'complete';
    } catch (failure) {
      const stopped = failure.name === 'AbortError';
      state.textContent = stopped ? 'stopped' : 'failed';
      show(error, stopped ? '' : reason(failure));
    } finally {
      clearInterval(levels);
      this.#figures(this.#received(), player.position);
      const focused = document.activeElement === stop;
      [start.hidden, stop.hidden, save.disabled] = [false, true, this.#pieces.length === 0];
      if (focused) start.focus();
      this.#request = null;
      await player.close();
    }
  }

  async #play(player, signal) {
    const query = new URLSearchParams({ tempo: tempo.value });
    if (voice.value) query.set('model_name', voice.value);
    const begun = performance.now();
    const answer = await this.#account.fetch(`/tts?${query}`, {
      method: 'POST',
      headers: { 'Content-Type': 'text/plain; charset=utf-8' },
      body: text.value,
      signal,
    });
    const samplesOf = reader();
    const stream = answer.body.getReader();
    for (let piece = await stream.read(); !piece.done; piece = await stream.read()) {
      const samples = samplesOf(piece.value);
      if (samples.length === 0) continue;
      if (this.#pieces.length === 0) {
        byId('speech-first').textContent = `${((performance.now() - begun) / 1_000).toFixed(2)} s`;
        state.textContent = 'speaking';
      }
      this.#pieces.push(samples);
      player.push(samples);
    }
    const stopped = new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
    await Promise.race([player.played(), stopped]);
  }

  #received() {
    return this.#pieces.reduce((sum, piece) => sum + piece.length, 0) / SAMPLE_RATE;
  }

  #figures(received, played) {
    byId('speech-received').textContent = seconds(received);
    byId('speech-played').textContent = seconds(played);
  }

  #save() {
    const link = Object.assign(document.createElement('a'), {
      href: URL.createObjectURL(wav(this.#pieces)),
      download: 'speech.wav',
    });
    link.click();
    URL.revokeObjectURL(link.href);
  }
}

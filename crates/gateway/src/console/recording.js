// Recordings, and what is said in them.

import { byId, element, offerLanguages, percent, reason, seconds } from './page.js';

const [file, drop, language, cancel, results] =
  ['recording-file', 'recording-drop', 'recording-language', 'recording-cancel', 'recording-results'].map(byId);
const state = byId('recording-state');

const size = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

export class Recording {
  #account = null;
  #waiting = [];
  #request = null;

  constructor() {
    offerLanguages(language);
    file.addEventListener('change', () => {
      this.#take(file.files);
      // So that the same file may be chosen again.
      file.value = '';
    });
    cancel.addEventListener('click', () => this.#stop());
    // Anywhere on the page: a file that misses the mark must not replace the page.
    document.addEventListener('dragover', (event) => {
      event.preventDefault();
      drop.classList.toggle('over', this.#account !== null);
    });
    document.addEventListener('dragleave', (event) => event.relatedTarget ?? drop.classList.remove('over'));
    document.addEventListener('drop', (event) => {
      event.preventDefault();
      drop.classList.remove('over');
      if (this.#account) this.#take(event.dataTransfer.files);
    });
  }

  open(account) {
    this.#account = account;
  }

  close() {
    this.#stop();
    this.#account = null;
    results.replaceChildren();
  }

  #stop() {
    this.#waiting = [];
    this.#request?.abort();
  }

  async #take(files) {
    this.#waiting.push(...files);
    if (this.#request) return;
    cancel.hidden = false;
    while (this.#waiting.length > 0) {
      await this.#recognise(this.#waiting.shift());
    }
    cancel.hidden = true;
    state.textContent = '';
  }

  // One at a time: the gateway has other clients, too.
  async #recognise(recording) {
    state.textContent = `recognising ${recording.name}`;
    this.#request = new AbortController();
    const begun = performance.now();
    const told = [element('b', { textContent: recording.name }), size(recording.size)];
    try {
      const query = language.value ? `?language=${encodeURIComponent(language.value)}` : '';
      const answer = await this.#account.fetch(`/asr${query}`, {
        method: 'POST',
        headers: { 'Content-Type': recording.type || 'application/octet-stream' },
        body: recording,
        signal: this.#request.signal,
      });
      const [best] = (await answer.json()).result.texts;
      told.push(`recognised in ${seconds((performance.now() - begun) / 1_000)}`);
      if (best?.confidence !== undefined) told.push(`confidence ${percent(best.confidence)}`);
      this.#tell(told, best ? best.punctuated_text ?? best.text : 'No speech recognised.', best ? 'words' : 'hint');
    } catch (failure) {
      const words = failure.name === 'AbortError' ? 'Cancelled.' : reason(failure);
      this.#tell(told, words, failure.name === 'AbortError' ? 'hint' : 'error');
    } finally {
      this.#request = null;
    }
  }

  #tell(told, text, kind) {
    if (!this.#account) return;
    const facts = element('p', { className: 'told' });
    told.forEach((fact, index) => facts.append(...(index ? [' · ', fact] : [fact])));
    results.prepend(element('li', {}, facts, element('p', { className: kind, textContent: text })));
  }
}

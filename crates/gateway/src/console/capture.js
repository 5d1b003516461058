// From the microphone to blocks of 100 ms of 16-bit samples, on the audio thread.

class Capture extends AudioWorkletProcessor {
  #block = new Int16Array(sampleRate / 10);
  #length = 0;
  #running = true;

  constructor() {
    super();
    // Whoever asks for the end gets what is there, and then nothing any more.
    this.port.onmessage = () => {
      this.#running = false;
      this.#post(this.#block.slice(0, this.#length));
      this.port.postMessage(null);
    };
  }

  process([[samples]]) {
    // It is called once more after the end, for what nobody asked for.
    if (!this.#running) return false;
    // Before the microphone delivers, there are no channels.
    for (const sample of samples ?? []) {
      this.#block[this.#length++] = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
      if (this.#length === this.#block.length) {
        this.#post(this.#block);
        this.#block = new Int16Array(sampleRate / 10);
        this.#length = 0;
      }
    }
    return true;
  }

  #post(block) {
    if (block.length > 0) this.port.postMessage(block, [block.buffer]);
  }
}

registerProcessor('capture', Capture);

// A level over time, newest at the right.

const [BAR, GAP] = [3, 2];
// What is quieter than this, in decibels below full scale, is drawn as silence.
const FLOOR = 54;

export class Trace {
  #canvas;
  #levels = [];

  constructor(canvas) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.#draw()).observe(canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#draw());
  }

  // Takes a peak, of 0 to 1.
  push(peak) {
    const level = Math.max(0, 1 + 20 * Math.log10(Math.max(peak, 1e-6)) / FLOOR);
    this.#levels.push(Math.min(level, 1));
    this.#levels.splice(0, this.#levels.length - 1_000);
    this.#canvas.setAttribute('aria-valuenow', Math.round(this.#levels.at(-1) * 100));
    this.#draw();
  }

  clear() {
    this.#levels = [];
    this.#canvas.setAttribute('aria-valuenow', 0);
    this.#draw();
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const ratio = devicePixelRatio;
    [this.#canvas.width, this.#canvas.height] = [width * ratio, height * ratio];
    const context = this.#canvas.getContext('2d');
    context.scale(ratio, ratio);
    const style = getComputedStyle(this.#canvas);
    const count = Math.floor(width / (BAR + GAP));
    const shown = this.#levels.slice(-count);
    for (let index = 0; index < count; index += 1) {
      const level = shown[shown.length - 1 - index] ?? 0;
      const tall = Math.max(2, level * (height - 8));
      context.fillStyle = level > 0 ? style.color : style.getPropertyValue('--line');
      context.fillRect(width - (index + 1) * (BAR + GAP), (height - tall) / 2, BAR, tall);
    }
  }
}

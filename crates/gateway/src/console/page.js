// What all parts of the page need: elements, figures as people read them, errors.

export const byId = (id) => document.getElementById(id);

// An element with a text, or with children.
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// Shows a text; nothing at all where there is none.
export function show(target, text) {
  target.textContent = text ?? '';
  target.hidden = !text;
}

export const seconds = (value) => `${value.toFixed(1)} s`;

// A duration, in its two largest units.
export function duration(inSeconds) {
  const whole = Math.max(0, Math.floor(inSeconds));
  const units = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]];
  const first = units.findIndex(([, length]) => whole >= length);
  if (first < 0) return '0 s';
  const parts = units.slice(first, first + 2).map(([unit, length], index) => {
    const rest = index ? whole % units[first][1] : whole;
    return [Math.floor(rest / length), unit];
  });
  return parts.filter(([count]) => count > 0).map(([count, unit]) => `${count} ${unit}`).join(' ');
}

// A place in a recording: 1:05.3.
export function clock(inSeconds) {
  const tenths = Math.floor(inSeconds * 10);
  return `${Math.floor(tenths / 600)}:${String(Math.floor(tenths / 10) % 60).padStart(2, '0')}.${tenths % 10}`;
}

export const percent = (part) => `${Math.round(part * 100)} %`;

// An error in the API's words, with its code where it has one.
export function reason(error) {
  return error.code ? `${error.message} (code ${error.code})` : error.message;
}

// The languages that are offered; the API takes any that the recogniser knows.
const LANGUAGES = {
  '': 'Detect', en: 'English', ru: 'Русский', uk: 'Українська', de: 'Deutsch', fr: 'Français', es: 'Español',
  it: 'Italiano', pt: 'Português', pl: 'Polski', nl: 'Nederlands', tr: 'Türkçe', ar: 'العربية', hi: 'हिन्दी',
  zh: '中文', ja: '日本語', ko: '한국어',
};

export function offerLanguages(select) {
  select.replaceChildren(...Object.entries(LANGUAGES).map(([value, text]) => new Option(text, value)));
}

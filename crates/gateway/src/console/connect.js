// How programs for other services connect to this gateway.

import { byId, show } from './page.js';

const [section, api, language, code, copy, state, error] =
  ['connect', 'connect-api', 'connect-language', 'connect-code', 'connect-copy', 'connect-state', 'connect-error']
    .map(byId);

// Replaces the options of a list, and keeps what is chosen if it is still there.
function offer(select, options) {
  const chosen = select.value;
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  if (options.some(([value]) => value === chosen)) select.value = chosen;
}

async function json(answer) {
  if (!answer.ok) throw new Error(`The snippets are not there: ${answer.status}`);
  return answer.json();
}

export class Connect {
  #account = null;
  #snippets = [];

  constructor() {
    api.addEventListener('change', () => this.#languages());
    language.addEventListener('change', () => this.#show());
    copy.addEventListener('click', () => this.#copy());
  }

  async open(account) {
    this.#account = account;
    show(error);
    section.hidden = true;
    try {
      const [{ dialects }, snippets] =
        await Promise.all([account.json('/console/status'), fetch('/console/snippets.json').then(json)]);
      if (account !== this.#account) return;
      const on = new Set(dialects.map(({ name }) => name));
      this.#snippets = snippets.filter(({ dialect }) => on.has(dialect));
      section.hidden = this.#snippets.length === 0;
      offer(api, [...new Map(this.#snippets.map(({ dialect, title }) => [dialect, title]))]);
      this.#languages();
    } catch (failure) {
      if (account !== this.#account) return;
      section.hidden = false;
      show(error, failure.message);
    }
  }

  close() {
    this.#account = null;
    this.#snippets = [];
    this.#show();
  }

  #languages() {
    const ours = this.#snippets.filter(({ dialect }) => dialect === api.value);
    offer(language, ours.map((snippet) => [snippet.language, snippet.language]));
    this.#show();
  }

  #show() {
    const wanted = (snippet) => snippet.dialect === api.value && snippet.language === language.value;
    const lines = this.#snippets.find(wanted)?.code ?? [];
    const sockets = location.origin.replace(/^http/, 'ws');
    code.textContent = lines.join('\n').replaceAll('{http}', location.origin).replaceAll('{ws}', sockets);
    state.textContent = '';
  }

  async #copy() {
    show(error);
    try {
      await navigator.clipboard.writeText(code.textContent);
      state.textContent = 'copied';
    } catch (failure) {
      show(error, `Not copied: ${failure.message}`);
    }
  }
}

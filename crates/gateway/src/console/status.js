// How busy the gateway is, and what the project does and did.

import { byId, duration, element, reason, seconds } from './page.js';

// Milliseconds between two looks, while somebody looks.
const INTERVAL = 2_000;

const STATES = { full: 'full: no new sessions', late: 'overloaded: no new sessions', draining: 'shutting down' };

const cell = (text, properties = {}) => element('td', { textContent: text, ...properties });
const number = (text) => cell(text, { className: 'number' });
const name = (text) => cell(text, { className: 'id', title: text });

function fill(body, rows, nothing) {
  const columns = body.parentElement.querySelectorAll('th').length;
  const none = () => element('tr', {}, cell(nothing, { colSpan: columns, className: 'hint' }));
  body.replaceChildren(...(rows.length > 0 ? rows : [none()]));
}

const row = (...cells) => element('tr', {}, ...cells);
const count = (value) => value.toLocaleString('en');
const audio = (milliseconds) => (milliseconds < 60_000 ? seconds(milliseconds / 1_000) : duration(milliseconds / 1_000));

// Whatever the gateway tells: a figure, of a limit where there is one.
function load({ what, now, limit }) {
  const value = Number.isInteger(now) ? count(now) : now.toFixed(2);
  const item = element('li', {},
    element('span', { textContent: what }),
    element('b', { textContent: limit === undefined ? value : `${value} of ${count(limit)}` }));
  if (limit !== undefined) {
    item.append(element('meter', { max: limit, high: limit * 0.8, optimum: 0, value: now, ariaLabel: what }));
  }
  return item;
}

export class Status {
  #account = null;
  #timer = null;

  constructor() {
    document.addEventListener('visibilitychange', () => this.#look());
  }

  open(account) {
    this.#account = account;
    this.#look();
  }

  close() {
    this.#account = null;
    clearTimeout(this.#timer);
    this.#tell('');
    for (const id of ['gateway-facts', 'gateway-load', 'project-sessions', 'project-usage', 'project-tokens']) {
      byId(id).replaceChildren();
    }
  }

  async #look() {
    clearTimeout(this.#timer);
    const account = this.#account;
    if (!account || document.hidden) return;
    try {
      const status = await account.json('/console/status');
      if (account === this.#account) this.#show(status);
    } catch (failure) {
      if (account === this.#account) this.#tell(failure.code ? reason(failure) : 'unreachable', 'bad');
    }
    if (account !== this.#account) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#look(), INTERVAL);
  }

  #tell(text, mood = '') {
    const state = byId('state');
    if (state.textContent !== text) state.textContent = text;
    state.dataset.mood = mood;
  }

  #show(status) {
    this.#tell(STATES[status.state] ?? status.state, status.state === 'ready' ? 'good' : 'busy');
    const expires = status.token.expires_in_seconds;
    const facts = {
      Version: status.version,
      Uptime: duration(status.uptime_seconds),
      Recogniser: status.recognizer ?? 'none',
      Token: `${status.token.id}, ${expires === null ? 'does not expire' : `expires in ${duration(expires)}`}`,
      Scopes: status.token.scopes.join(', '),
    };
    byId('gateway-facts').replaceChildren(...Object.entries(facts).map(([term, value]) =>
      element('div', {}, element('dt', { textContent: term }), element('dd', { textContent: value }))));
    byId('gateway-load').replaceChildren(...status.load.map(load));
    this.#project(status.project, Date.parse(status.now));
  }

  #project({ sessions, usage, tokens }, now) {
    const since = (time) => now - Date.parse(time);
    const ago = (time) => (since(time) < 5_000 ? 'just now' : `${duration(since(time) / 1_000)} ago`);
    fill(byId('project-sessions'), sessions.map((session) => row(
      name(session.session),
      name(session.holder),
      number(audio(session.received / session.sample_rate * 1_000)),
      number(seconds((session.received - session.final) / session.sample_rate)),
      number(count(session.finals)),
    )), 'No live sessions.');
    fill(byId('project-usage'), usage.map(({ id, today, total, last_used: used }) => row(
      name(id),
      number(audio(today.audio_ms)),
      number(audio(total.audio_ms)),
      number(count(today.characters)),
      number(count(total.characters)),
      cell(ago(used)),
    )), 'No usage yet.');
    fill(byId('project-tokens'), tokens.map(({ id, kind, created, expires }) => row(
      name(id),
      cell(kind),
      cell(ago(created)),
      cell(expires === null ? 'never' : `in ${duration(-since(expires) / 1_000)}`),
    )), 'No tokens.');
  }
}

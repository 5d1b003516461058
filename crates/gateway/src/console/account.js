// Who uses the page: a client's tokens, which are renewed, or a service token. They live in this object and nowhere else.

const TOKEN_PATH = '/auth/oauth/v1/token';
const REVOKE_PATH = '/auth/oauth/v1/revoke';
// How a token is refused that is missing, unknown or expired. One that is good, but not for this, has the same code, and
// may have the same status.
const UNKNOWN = 'Bearer';
const BAD_TOKEN = 4048;
// Tokens are renewed when this part of their life has passed.
const RENEW_AT = 0.8;
// How long until a renewal that failed is tried again, in milliseconds.
const RETRY = 5_000;

export class ApiError extends Error {
  constructor(message, code, status, challenge = null) {
    super(message);
    this.code = code;
    this.status = status;
    this.challenge = challenge;
  }
}

// The answer, or its refusal in the API's words: those of the token endpoint differ from all others.
async function accepted(response) {
  if (response.ok) return response;
  const { error, error_description } = await response.json().catch(() => ({}));
  const message = error?.message ?? error_description ?? `the gateway returned status ${response.status}`;
  throw new ApiError(message, error?.code ?? error ?? response.status, response.status, response.headers.get('WWW-Authenticate'));
}

const post = async (path, body, options) => fetch(path, {
  method: 'POST',
  headers: { 'Content-Type': 'application/json' },
  body: JSON.stringify(body),
  ...options,
});

// Tells of `renewed` when there is a new token, and of `lost` when there will be none.
export class Account extends EventTarget {
  #access;
  #refresh = null;
  #clientId = null;
  #timer = null;
  #renewing = null;

  static async ofClient(clientId, secret) {
    const account = new Account();
    account.#clientId = clientId;
    await account.#ask({ grant_type: 'client_credentials', client_secret: secret });
    return account;
  }

  static async ofServiceToken(token) {
    const account = new Account();
    account.#access = token;
    return account;
  }

  async #ask(grant) {
    const granted = await (await accepted(await post(TOKEN_PATH, { client_id: this.#clientId, ...grant }))).json();
    this.#access = granted.access_token;
    this.#refresh = granted.refresh_token;
    // The API writes this number as a string.
    this.#renewIn(Number(granted.expired_in) * RENEW_AT * 1_000);
  }

  #renewIn(milliseconds) {
    clearTimeout(this.#timer);
    // A timer holds no more than 24 days.
    this.#timer = setTimeout(() => this.renew().catch(() => {}), Math.min(milliseconds, 2 ** 31 - 1));
  }

  get token() {
    return this.#access;
  }

  // Gets the next token; once, however many ask.
  renew() {
    this.#renewing ??= this.#renew().finally(() => { this.#renewing = null; });
    return this.#renewing;
  }

  async #renew() {
    try {
      if (!this.#refresh) throw new ApiError('token is unknown or expired', BAD_TOKEN, 401);
      await this.#ask({ grant_type: 'refresh_token', refresh_token: this.#refresh });
    } catch (error) {
      const dead = error.status === 400 || error.status === 401;
      if (dead) this.dispatchEvent(new CustomEvent('lost', { detail: error }));
      else this.#renewIn(RETRY);
      throw error;
    }
    this.dispatchEvent(new Event('renewed'));
  }

  // Asks the API. Where the token turns out to be dead, it is asked once more under the next.
  async fetch(path, options = {}) {
    const ask = async () => {
      const headers = { ...options.headers, Authorization: `Bearer ${this.#access}` };
      return accepted(await fetch(path, { ...options, headers }));
    };
    const asked = this.#access;
    try {
      return await ask();
    } catch (error) {
      if (error.challenge !== UNKNOWN) throw error;
      // Another request may have renewed it meanwhile.
      if (this.#access === asked) await this.renew();
      return ask();
    }
  }

  async json(path) {
    return (await this.fetch(path)).json();
  }

  // Forgets the tokens, and gives back those that were made for this page: there may be 25 of them at once. This works
  // while the page is being left, too.
  forget() {
    clearTimeout(this.#timer);
    if (this.#refresh) {
      post(REVOKE_PATH, { client_id: this.#clientId, token: this.#refresh }, { keepalive: true }).catch(() => {});
    }
    this.#access = this.#refresh = null;
  }
}

// The client's end of the protocol `voxline.asr.v1`: audio in, text out, whatever becomes of the sockets between.
//
// A position counts frames from the start of the stream, and final <= received <= sent <= accepted at all times. What
// lies above `final` is kept: a socket that dies costs nothing, since the next sends again what the gateway lacks.

import { ApiError } from './account.js';

const PATH = '/asr_stream/ws';
const PROTOCOL = 'voxline.asr.v1';
// A browser can't set headers on a WebSocket. Its token travels as a second subprotocol, which is never answered.
const BEARER = 'voxline.bearer.';

// Closes that no other socket mends: bad messages, a token that may not, a language that isn't there.
const FATAL = new Set([1002, 1003, 1007, 1009, 1010, 4400, 4403, 4415]);
const POLICY = 1008;
const BAD_TOKEN = 4401;
const SESSION_UNKNOWN = 4404;
const BUSY = new Set([1013, 4429]);
// Not of the wire: the session should move to another socket while this one still works.
const MOVE = 0;

// Milliseconds. A gateway that is asked for something and says nothing for so long counts as gone.
const SILENCE = 30_000;
const OPENING = 10_000;
const [BACK_OFF, LONGEST_BACK_OFF, BUSY_WAIT] = [100, 10_000, 5_000];
// A connection that lived so long was sound.
const HEALTHY = 30_000;

// The most that a move to another gateway is put off, so that not everybody moves at once.
const LONGEST_SPREAD = 1_000;

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// Returns the address where a gateway at `base` has its stream. A base that this page may not ask gives null: a token goes
// to the page's own origin alone, whoever names another.
function streamAt(base) {
  if (!URL.canParse(base)) return null;
  const url = new URL(base);
  if (url.origin !== location.origin || url.search || url.hash) return null;
  url.pathname = url.pathname.replace(/\/+$/, '') + PATH;
  url.protocol = url.protocol.replace('http', 'ws');
  return url;
}

// Calls `on.partial(text)`, `on.final({ start, end, text, confidence })`, `on.change()` when a figure or `state` has
// changed, and `on.end(error)` once, without an error where everything is final.
export class Session {
  accepted = 0;
  sent = 0;
  received = 0;
  final = 0;
  reconnects = 0;

  #account;
  #start;
  #on;
  #chunks = []; // { start, samples }, what is above `final`, oldest first
  #socket = null; // the one that carries the session
  #dialling = null; // the one that is to, or does
  #server = null; // which session of the gateway's is ours, and the key to it
  #finalsSeen = 0;
  #behind = { origin: 0 }; // what a session that begins anew is told: where, and the recogniser's context there
  #window = 0;
  #inBand = false;
  #move = null; // leaves that one for another
  #addresses = [streamAt(location.origin)]; // of the gateways that may carry the session, the next to ask first
  #restart = false; // the gateway wants the session to begin anew at one of these
  #held = null; // finals of a session that another is asked to replace: the other says them again
  #left = () => {}; // is told when the live socket ends
  #finished = false;
  #finishSaid = false;
  #over = false;
  #carried = false; // by any socket yet
  #lost = false; // and not replaced yet

  constructor(account, { sampleRate, language }, on) {
    this.#account = account;
    this.#start = { type: 'start', sample_rate: sampleRate, language: language || undefined };
    this.#on = on;
    account.addEventListener('renewed', this.#renewed);
    this.#run().catch((error) => this.#end(error));
  }

  get state() {
    if (this.#socket) return 'connected';
    return this.#carried ? 'reconnecting' : 'connecting';
  }

  // Takes samples, as an Int16Array.
  push(samples) {
    this.#chunks.push({ start: this.accepted, samples });
    this.accepted += samples.length;
    this.#send();
    this.#on.change();
  }

  // No audio follows. What is final by then is still told.
  finish() {
    this.#finished = true;
    this.#send();
  }

  // Gives up what is not final yet.
  abandon() {
    this.#socket?.close(1000);
    this.#end(null);
  }

  #end(error) {
    if (this.#over) return;
    this.#over = true;
    this.#socket = null;
    this.#left();
    this.#dialling?.close(1000);
    this.#account.removeEventListener('renewed', this.#renewed);
    this.#on.end(error);
  }

  // Keeps a socket under the session until it ends.
  async #run() {
    for (let failures = 0; !this.#over;) {
      const begun = performance.now();
      const { code, reason, opened } = await this.#connect();
      if (this.#over) return;
      if (code === MOVE) continue;
      this.#on.change();
      // A gateway that would not take over changes nothing for the one that still works.
      if (FATAL.has(code) && this.#socket) await this.#stay();
      else if (FATAL.has(code)) throw new ApiError(reason, code);
      if (this.#over) return;
      if (!opened) this.#addresses.push(this.#addresses.shift());
      if (code === SESSION_UNKNOWN) [this.#server, this.#finalsSeen] = [null, 0];
      if (code === BAD_TOKEN || code === POLICY) await this.#renewNow();
      if (!opened && !this.#socket) await this.#askWhy();
      failures = performance.now() - begun > HEALTHY ? 0 : failures + 1;
      const longest = Math.min(BACK_OFF * 2 ** failures, LONGEST_BACK_OFF);
      await pause(BUSY.has(code) ? BUSY_WAIT : Math.random() * longest);
    }
  }

  // Carries the session on a new socket, from where the gateway has it. Tells why that ended.
  #connect() {
    const url = new URL(this.#addresses[0]);
    const anew = this.#restart || !this.#server;
    // A gateway that takes no more sessions still takes back those it has.
    if (!anew) url.searchParams.set('session', this.#server.session);
    const socket = new WebSocket(url, [PROTOCOL, BEARER + this.#account.token]);
    this.#dialling = socket;
    let [heard, opened] = [performance.now(), false];
    return new Promise((resolve) => {
      const leave = (code, reason) => {
        clearInterval(watch);
        if (this.#socket === socket && code !== MOVE) {
          [this.#socket, this.#lost] = [null, true];
          this.#left();
        }
        if (this.#dialling === socket) this.#release();
        resolve({ code, reason, opened });
      };
      const watch = setInterval(() => {
        const live = this.#socket === socket;
        const asked = !live || this.sent > this.received || this.#finished;
        if (asked && performance.now() - heard > (live ? SILENCE : OPENING)) {
          leave(1006, 'the gateway does not respond');
          socket.close();
        }
      }, 1_000);
      socket.onopen = () => {
        opened = true;
        if (this.#over) return;
        const resume = { type: 'resume', ...this.#server, finals_seen: this.#finalsSeen };
        if (anew && this.#socket) this.#held = [];
        socket.send(JSON.stringify(anew ? { ...this.#start, ...this.#behind } : resume));
      };
      socket.onmessage = ({ data }) => {
        heard = performance.now();
        if (this.#over) return;
        const message = JSON.parse(data);
        if (message.type === 'ready') {
          const old = this.#socket;
          [this.#socket, this.#move] = [socket, () => leave(MOVE)];
          if (anew) {
            [this.#restart, this.#held, this.#finalsSeen] = [false, null, 0];
            old?.close(1000);
          }
        }
        // What an old socket says after the session has moved concerns nobody.
        if (this.#socket === socket) this.#hear(message);
      };
      socket.onclose = ({ code, reason }) => leave(code, reason || 'the connection was lost');
    });
  }

  // The gateway stops, and another takes its sessions: at one of these addresses, or where this page is from.
  #beginAnew({ endpoints, deadline_ms: deadline }) {
    const named = (endpoints ?? []).map(streamAt).filter((url) => url);
    [this.#restart, this.#addresses] = [true, [...named, streamAt(location.origin)]];
    const move = this.#move;
    setTimeout(() => this.#restart && move(), Math.random() * Math.min(deadline / 2, LONGEST_SPREAD));
  }

  // Goes on with the live socket for as long as it lives.
  async #stay() {
    this.#restart = false;
    await new Promise((resolve) => { this.#left = resolve; });
  }

  // The finals that were held are told: no other session says them.
  #release() {
    const held = this.#held ?? [];
    this.#held = null;
    if (!this.#over) held.forEach((message) => this.#hear(message));
  }

  #hear(message) {
    if (this.#held && message.type === 'done') this.#release();
    if (this.#held && message.type === 'final') {
      this.#held.push(message);
      return;
    }
    switch (message.type) {
      case 'ready':
        if (this.#lost) this.reconnects += 1;
        [this.#carried, this.#lost] = [true, false];
        this.#server = { session: message.session, resume_key: message.resume_key };
        [this.#window, this.#inBand] = [message.window_frames, message.auth];
        this.sent = this.received = message.received;
        this.#finishSaid = false;
        break;
      case 'ack':
        this.received = message.received;
        break;
      case 'partial':
        this.#on.partial(message.text);
        break;
      case 'final':
        // A final may come twice when the session moves.
        if (message.index < this.#finalsSeen) return;
        this.#finalsSeen = message.index + 1;
        this.final = message.end;
        this.#behind = { origin: this.final, context: message.context ?? this.#behind.context };
        this.#chunks = this.#chunks.filter(({ start, samples }) => start + samples.length > this.final);
        this.#on.final(message);
        break;
      case 'done':
        this.#socket.close(1000);
        return this.#end(null);
      case 'goaway':
        // Before the other reasons the account has renewed its token, or no other socket would be taken. What is left
        // of a session that is finished is the gateway's to do.
        if (message.restart && !this.#restart && !this.#finishSaid) this.#beginAnew(message);
        break;
      default:
        // `auth_ok`; `error`, whose words the close repeats; what a later version says.
    }
    this.#send();
    this.#on.change();
  }

  // Sends what the gateway has room for.
  #send() {
    while (this.#socket && this.sent < this.accepted) {
      const { start, samples } = this.#chunks.find((chunk) => chunk.start + chunk.samples.length > this.sent);
      if (start + samples.length - this.received > this.#window) return;
      const rest = samples.subarray(this.sent - start);
      const frame = new ArrayBuffer(8 + rest.byteLength);
      new DataView(frame).setBigUint64(0, BigInt(this.sent), true);
      // The wire is little-endian, and so is every machine that runs a browser.
      new Int16Array(frame, 8).set(rest);
      this.#socket.send(frame);
      this.sent += rest.length;
    }
    if (this.#socket && this.#finished && !this.#finishSaid) {
      this.#finishSaid = true;
      this.#say({ type: 'finish', through: this.accepted });
    }
  }

  #say(message) {
    this.#socket?.send(JSON.stringify(message));
  }

  // Goes on under the new token: on the same socket where that may be, else on another, while the old one still works.
  #renewed = () => {
    if (this.#inBand) this.#say({ type: 'auth', access_token: this.#account.token });
    else this.#move?.();
  };

  // Without an answer there is still the old token, and another try.
  async #renewNow() {
    await this.#account.renew().catch((error) => {
      if (error.status === 400 || error.status === 401) throw error;
    });
  }

  // A browser doesn't tell why a socket was refused. The status does, and throws what no other try would change.
  async #askWhy() {
    const status = await this.#account.json('/console/status').catch((error) => {
      if (error.status >= 400 && error.status < 429) throw error;
    });
    if (!status) return;
    if (!status.recognizer) throw new ApiError('this gateway has no recogniser', 501);
    if (!status.token.scopes.includes('asr_stream')) throw new ApiError('token has no scope asr_stream', 4048);
    // What has begun waits; whoever would begin is told.
    if (!this.#carried && status.state !== 'ready') {
      throw new ApiError(`the gateway accepts no new sessions, it is ${status.state}`, status.state === 'full' ? 429 : 503);
    }
  }
}

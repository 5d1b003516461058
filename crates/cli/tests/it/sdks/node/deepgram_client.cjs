// Calls the methods of Deepgram's client for JavaScript that the gateway serves. Prints their results as one
// JSON object.
//
// Arguments: the gateway, a recording with two channels, two files with PCM at 16 kHz, a text to speak.

const fs = require("node:fs");

const { DeepgramClient } = require("@deepgram/sdk");

const [gateway, ...names] = process.argv.slice(2, 6);
const text = process.argv[6];
const [recording, first, second] = names.map((name) => fs.readFileSync(name));
const sockets = gateway.replace("http", "ws");
// Failures are not hidden by retries.
const options = {
  environment: { base: gateway, production: sockets, agent: sockets, agentRest: gateway },
  maxRetries: 0,
  reconnect: false,
};
const client = new DeepgramClient({ ...options, apiKey: process.env.DEEPGRAM_API_KEY });
// Size of a tenth of a second.
const PIECE = 3_200;

function pieces(pcm, size = PIECE) {
  return Array.from({ length: Math.ceil(pcm.length / size) }, (_, at) => pcm.subarray(at * size, (at + 1) * size));
}

/** A socket of the client, with its messages so far. */
class Connection {
  static async open(connecting, prefix) {
    const socket = await connecting;
    const connection = new Connection(socket, prefix);
    socket.connect();
    await socket.waitForOpen();
    return connection;
  }

  constructor(socket, prefix) {
    Object.assign(this, { socket, prefix, messages: [], events: [], audio: [] });
    socket.on("open", () => this.tell("OPEN"));
    socket.on("close", () => this.tell("CLOSE"));
    socket.on("error", (error) => {
      throw error;
    });
    this.changed = () => {};
    socket.on("message", (message) => {
      if (message instanceof Blob) this.audio.push(message);
      else this.messages.push({ class: `${prefix}${message.type}`, ...message });
      this.tell("MESSAGE");
    });
  }

  tell(event) {
    if (!this.events.includes(event)) this.events.push(event);
    this.changed();
  }

  /** Waits until the messages, or the events, are as they should be. */
  until(isReached) {
    return new Promise((resolve) => {
      this.changed = () => {
        if (isReached(this.messages, this.events)) resolve();
      };
      this.changed();
    });
  }

  closed() {
    return this.until((_, events) => events.includes("CLOSE"));
  }

  /** Returns the audio so far, and forgets it. */
  async spoken() {
    const audio = await new Blob(this.audio.splice(0)).arrayBuffer();
    return Buffer.from(audio);
  }

  /** Returns all messages after sending audio, and its end. */
  async answer(audio, size = PIECE) {
    for (const piece of pieces(audio, size)) this.socket.sendMedia(piece);
    this.socket.sendCloseStream({ type: "CloseStream" });
    await this.closed();
    return this.messages;
  }
}

function listen(fields, by = client) {
  return Connection.open(by.listen.v1.connect({ model: "nova-3", ...fields }), "ListenV1");
}

const pcm = { encoding: "linear16", sample_rate: 16_000 };

/** Sends two utterances to a socket that is read between them. Returns all messages. */
async function live() {
  const connection = await listen({
    ...pcm,
    channels: 1,
    interim_results: "true",
    smart_format: "true",
    vad_events: "true",
    endpointing: 300,
    utterance_end_ms: 1_000,
    language: "en-US",
  });
  const { socket } = connection;
  // The service closes a socket on which nothing comes for ten seconds.
  const alive = setInterval(() => socket.sendKeepAlive({ type: "KeepAlive" }), 3_000);
  const finalized = (messages) => messages.filter((message) => message.from_finalize).length;
  const audio = pieces(first);
  const middle = Math.floor(audio.length / 2);
  for (const piece of audio.slice(0, middle)) socket.sendMedia(piece);
  await connection.until((messages) => messages.some(({ type, is_final }) => type === "Results" && !is_final));
  for (const piece of audio.slice(middle)) socket.sendMedia(piece);
  socket.sendFinalize({ type: "Finalize" });
  await connection.until((messages) => finalized(messages) === 1);
  // Nothing is left to be said, which is answered, too.
  socket.sendFinalize({ type: "Finalize" });
  await connection.until((messages) => finalized(messages) === 2);
  clearInterval(alive);
  // A pause ends the second utterance.
  return connection.answer(Buffer.concat([second, Buffer.alloc(20 * PIECE)]));
}

/** Sends two channels. */
async function multichannel() {
  const frames = Math.max(first.length, second.length) / 2;
  const interleaved = Buffer.alloc(4 * frames);
  for (const [channel, plane] of [first, second].entries()) {
    for (let at = 0; at < plane.length; at += 2) interleaved.writeInt16LE(plane.readInt16LE(at), 2 * at + 2 * channel);
  }
  const connection = await listen({ ...pcm, channels: 2, multichannel: "true", punctuate: "true" });
  const messages = await connection.answer(interleaved, 2 * PIECE);
  return { messages, events: connection.events };
}

/** Sends a recording as it is, with a token as such. */
async function container() {
  const bearer = new DeepgramClient({ ...options, accessToken: process.env.DEEPGRAM_API_KEY });
  return (await listen({}, bearer)).answer(recording);
}

/** Sends a recording with a short-lived key, which is of no use for anything but streams. */
async function granted() {
  const grants = [await client.auth.v1.tokens.grant(), await client.auth.v1.tokens.grant({ ttl_seconds: 60 })];
  const page = new DeepgramClient({ ...options, accessToken: grants[1].access_token });
  const messages = await (await listen(pcm, page)).answer(second);
  const refusal = await failure(() => page.listen.v1.media.transcribeFile(recording, { model: "nova-3" }));
  return { grants, messages, refusal };
}

/** Speaks a text that comes in pieces: up to a flush, up to a clear, and up to the end. */
async function speakLive() {
  const speak = client.speak.v1.connect({ model: "aura-2-thalia-en", encoding: "linear16", sample_rate: 24_000 });
  const connection = await Connection.open(speak, "SpeakV1");
  const { socket } = connection;
  const told = (kind) => connection.until((messages) => messages.some(({ type }) => type === kind));
  for (const word of text.split(" ")) socket.sendText({ type: "Speak", text: `${word} ` });
  socket.sendFlush({ type: "Flush" });
  await told("Flushed");
  const flushed = await connection.spoken();
  socket.sendText({ type: "Speak", text: "Nobody should hear the end of this sentence" });
  socket.sendClear({ type: "Clear" });
  await told("Cleared");
  const cleared = await connection.spoken();
  socket.sendText({ type: "Speak", text });
  socket.sendClose({ type: "Close" });
  await connection.closed();
  const closed = await connection.spoken();
  const heard = [];
  for (const speech of [flushed, closed]) heard.push(await transcribe(speech, pcmAt(24_000)));
  const seconds = Object.fromEntries(
    Object.entries({ flushed, cleared, closed }).map(([name, speech]) => [name, speech.length / 48_000]),
  );
  return { messages: connection.messages, heard, seconds };
}

function pcmAt(rate) {
  return [{ encoding: "linear16" }, { queryParams: { sample_rate: rate } }];
}

async function transcribe(audio, [fields, requestOptions] = [{}]) {
  const answer = client.listen.v1.media.transcribeFile(audio, { model: "nova-3", ...fields }, requestOptions);
  return { class: "ListenV1Response", ...(await answer) };
}

/** Writes a speech to a file, whose name is returned. */
async function speak(encoding, fields = {}) {
  const name = `spoken-${Object.values(fields).join("-")}.${encoding}`;
  const answer = await client.speak.v1.audio.generate({ text, model: "aura-2-thalia-en", encoding, ...fields });
  fs.writeFileSync(name, Buffer.from(await answer.arrayBuffer()));
  return name;
}

/** Returns the error that a call ends with. */
async function failure(call) {
  try {
    await call();
  } catch (error) {
    return { status: error.statusCode, body: error.body };
  }
  return null;
}

/** Returns the status that refuses a socket, which the client tells in the text of an error only. */
async function refusedStatus() {
  const stranger = new DeepgramClient({ ...options, apiKey: "wrong" });
  const socket = await stranger.listen.v1.connect({ model: "nova-3" });
  return new Promise((resolve) => {
    socket.on("error", (error) => resolve({ status: Number(/\d{3}/.exec(error.message)?.[0]) }));
    socket.connect();
  });
}

async function main() {
  const results = {
    live: await live(),
    multichannel: await multichannel(),
    container: await container(),
    granted: await granted(),
    speak_live: await speakLive(),
    file: await transcribe(recording, [{ smart_format: true, utterances: true, paragraphs: true }]),
    channels: await transcribe(recording, [{ multichannel: true }]),
    speech: {
      wav: await speak("linear16", { container: "wav", sample_rate: 16_000 }),
      pcm: await speak("linear16", { container: "none", sample_rate: 24_000 }),
      mp3: await speak("mp3"),
      opus: await speak("opus", { container: "ogg" }),
      flac: await speak("flac", { sample_rate: 24_000 }),
    },
    failures: {
      key: await refusedStatus(),
      address: await failure(() =>
        client.listen.v1.media.transcribeUrl({ url: "http://127.0.0.1/a.wav", model: "nova-3" }),
      ),
      voice: await failure(() => client.speak.v1.audio.generate({ text, model: "none" })),
    },
  };
  results.heard = await transcribe(fs.readFileSync(results.speech.wav));
  console.log(JSON.stringify(results));
}

main();

// Calls the methods of OpenAI's client for JavaScript that the gateway serves. Prints their results as one
// JSON object.
//
// Arguments: the gateway, a stereo recording, a recording with a pause, a Russian recording, a text to speak,
// two files with PCM at 24 kHz.

const fs = require("node:fs");

const OpenAI = require("openai");
const { OpenAIRealtimeWS } = require("openai/realtime/ws");

const [gateway, stereo, pause, russian, text, ...utterances] = process.argv.slice(2);
// Failures are not hidden by retries.
const options = { baseURL: `${gateway}/v1`, maxRetries: 0 };
const client = new OpenAI(options);
// Size of a tenth of a second.
const PIECE = 4_800;

function transcribe(recording, fields = {}) {
  return client.audio.transcriptions.create({ file: fs.createReadStream(recording), model: "whisper-1", ...fields });
}

function translate(fields = {}) {
  return client.audio.translations.create({ file: fs.createReadStream(russian), model: "whisper-1", ...fields });
}

/** Writes a speech to a file, whose name is returned. */
async function speak(format, fields = {}) {
  const name = `speech-${Object.values(fields).join("-")}.${format}`;
  const answer = await client.audio.speech.create({
    model: "gpt-4o-mini-tts",
    voice: "onyx",
    input: text,
    response_format: format,
    ...fields,
  });
  fs.writeFileSync(name, Buffer.from(await answer.arrayBuffer()));
  return name;
}

/** Returns the error that a call ends with. */
async function failure(call) {
  try {
    await call();
  } catch (error) {
    return { class: error.constructor.name, status: error.status, param: error.param, request: error.requestID };
  }
  return null;
}

async function collected(items) {
  const all = [];
  for await (const item of items) all.push(item);
  return all;
}

/** Events of a connection, which can be waited for. */
class Events {
  constructor(connection) {
    this.all = [];
    this.awaited = null;
    connection.on("event", (event) => {
      this.all.push(event);
      this.wake();
    });
    // The error is one of the events, too. Without a listener the client throws it.
    connection.on("error", (error) => {
      if (!error.error) throw error;
    });
  }

  wake() {
    if (this.awaited && this.all.slice(this.awaited.from).some((event) => event.type === this.awaited.kind)) {
      this.awaited.resolve();
      this.awaited = null;
    }
  }

  /** Waits for an event of a kind after this position among all events. */
  until(kind, from) {
    return new Promise((resolve) => {
      this.awaited = { kind, from, resolve };
      this.wake();
    });
  }
}

/** Sends two utterances by a short-lived key: the first is committed, the end of the second is detected. */
async function realtime() {
  const secret = await client.realtime.clientSecrets.create({
    expires_after: { anchor: "created_at", seconds: 60 },
    session: {
      type: "transcription",
      audio: {
        input: {
          format: { type: "audio/pcm", rate: 24_000 },
          transcription: { model: "gpt-4o-transcribe", language: "en" },
          turn_detection: null,
        },
      },
    },
  });
  const page = new OpenAI({ ...options, apiKey: secret.value });
  const connection = new OpenAIRealtimeWS({ intent: "transcription" }, page);
  const events = new Events(connection);
  const append = (pcm) => {
    for (let start = 0; start < pcm.length; start += PIECE) {
      const audio = pcm.subarray(start, start + PIECE).toString("base64");
      connection.send({ type: "input_audio_buffer.append", audio });
    }
  };
  const completed = "conversation.item.input_audio_transcription.completed";
  const [first, second] = utterances.map((name) => fs.readFileSync(name));
  await events.until("session.created", 0);
  append(first);
  connection.send({ type: "input_audio_buffer.commit", event_id: "whole" });
  await events.until(completed, 0);
  connection.send({ type: "input_audio_buffer.commit", event_id: "empty" });
  await events.until("error", 0);
  const session = { type: "transcription", audio: { input: { turn_detection: { type: "server_vad" } } } };
  connection.send({ type: "session.update", session });
  await events.until("session.updated", 0);
  const before = events.all.length;
  append(Buffer.concat([second, Buffer.alloc(20 * PIECE)]));
  await events.until(completed, before);
  append(first);
  connection.send({ type: "input_audio_buffer.clear" });
  await events.until("input_audio_buffer.cleared", before);
  connection.close();
  return { secret, events: events.all, refusal: await failure(() => page.models.list()) };
}

async function main() {
  const models = await collected(client.models.list());
  const speech = {};
  for (const format of ["mp3", "opus", "flac", "wav", "pcm"]) speech[format] = await speak(format);
  const byDefault = await client.audio.speech.create({ model: "tts-1", voice: "nova", input: text });
  const results = {
    models,
    model: await client.models.retrieve(models.at(-1).id),
    default: await transcribe(stereo),
    json: await transcribe(stereo, {
      response_format: "json",
      language: "en",
      temperature: 0,
      prompt: "A meeting.",
    }),
    text: await transcribe(stereo, { response_format: "text" }),
    srt: await transcribe(pause, { response_format: "srt" }),
    vtt: await transcribe(pause, { response_format: "vtt" }),
    verbose: await transcribe(pause, {
      response_format: "verbose_json",
      timestamp_granularities: ["word", "segment"],
    }),
    diarized: await transcribe(stereo, {
      response_format: "diarized_json",
      chunking_strategy: "auto",
      known_speaker_names: ["Ann"],
    }),
    stream: await collected(await transcribe(pause, { stream: true })),
    translation: await translate(),
    verbose_translation: await translate({ response_format: "verbose_json" }),
    speech,
    fast_speech: await speak("wav", { speed: 2 }),
    default_speech: Buffer.from(await byDefault.arrayBuffer()).subarray(0, 2).toString("hex"),
    realtime: await realtime(),
    failures: {
      key: await failure(() => new OpenAI({ ...options, apiKey: "wrong" }).models.list()),
      model: await failure(() => client.models.retrieve("none")),
      file: await failure(async () =>
        client.audio.transcriptions.create({
          file: await OpenAI.toFile(Buffer.from("no recording"), "file"),
          model: "whisper-1",
        }),
      ),
      format: await failure(() => speak("aac")),
    },
  };
  results.heard = (await transcribe(speech.wav)).text;
  console.log(JSON.stringify(results));
}

main();

//! The client `deepgram`.

use std::fs;
use std::path::Path;

use deepgram::auth::options::Options as GrantOptions;
use deepgram::common::audio_source::AudioSource;
use deepgram::common::options::{Encoding, Endpointing, Language, Model, Options, OptionsBuilder};
use deepgram::common::stream_response::StreamResponse;
use deepgram::listen::websocket::WebsocketHandle;
use deepgram::speak::SpeakResponse;
use deepgram::speak::options::{
    Container, Encoding as SpeechEncoding, Model as SpeechModel, Options as SpeechOptions,
};
use deepgram::{Deepgram, DeepgramError};
use serde_json::{Value, json, to_value};

use crate::Outcome;

/// Size of a tenth of a second.
const PIECE: usize = 3_200;

/// The client, and the arguments.
struct Calls<'a> {
    client: Deepgram,
    gateway: &'a str,
    recording: Vec<u8>,
    utterances: [Vec<u8>; 2],
    text: &'a str,
    key: String,
}

/// Calls all methods. Returns their results.
pub(crate) async fn results(arguments: &[String]) -> Outcome<Value> {
    let [gateway, recording, first, second, text] = arguments else {
        return Err("five arguments are needed".into());
    };
    #[allow(clippy::disallowed_methods, reason = "the client takes its key from its caller alone")]
    let key = std::env::var("DEEPGRAM_API_KEY")?;
    let calls = Calls {
        client: Deepgram::with_base_url_and_api_key(gateway.as_str(), &key)?,
        gateway,
        recording: fs::read(recording)?,
        utterances: [fs::read(first)?, fs::read(second)?],
        text,
        key,
    };
    let speech = calls.speeches().await?;
    let spoken = fs::read(speech["wav"].as_str().ok_or("no file")?)?;
    let all = Options::builder().smart_format(true).utterances(true).paragraphs(true);
    Ok(json!({
        "live": calls.live().await?,
        "multichannel": { "messages": calls.multichannel().await? },
        "container": calls.container().await?,
        "granted": calls.granted().await?,
        "speak_live": calls.speak_live().await?,
        "file": calls.transcribe(&calls.recording, all).await?,
        "channels": calls.transcribe(&calls.recording, Options::builder().multichannel(true)).await?,
        "heard": calls.transcribe(&spoken, Options::builder()).await?,
        "speech": speech,
        "failures": calls.failures().await,
    }))
}

/// Returns a message with the name that the other clients have for its class.
fn told(prefix: &str, message: impl serde::Serialize) -> Outcome<Value> {
    let mut message = to_value(message)?;
    message["class"] = format!("{prefix}{}", message["type"].as_str().unwrap_or_default()).into();
    Ok(message)
}

/// Reads until a message for which `is_awaited`, or the end of the stream.
async fn read(
    handle: &mut WebsocketHandle,
    messages: &mut Vec<Value>,
    is_awaited: impl Fn(&Value) -> bool,
) -> Outcome<()> {
    while let Some(message) = handle.receive().await {
        let message: StreamResponse = message?;
        messages.push(told("ListenV1", message)?);
        if messages.last().is_some_and(&is_awaited) {
            break;
        }
    }
    Ok(())
}

async fn send(handle: &mut WebsocketHandle, audio: &[u8], size: usize) -> Outcome<()> {
    for piece in audio.chunks(size) {
        handle.send_data(piece.to_vec()).await?;
    }
    Ok(())
}

/// Sends audio and its end. Returns all messages.
async fn answer(mut handle: WebsocketHandle, audio: &[u8], size: usize) -> Outcome<Value> {
    let mut messages = Vec::new();
    send(&mut handle, audio, size).await?;
    handle.close_stream().await?;
    read(&mut handle, &mut messages, |_| false).await?;
    Ok(messages.into())
}

/// Returns samples of two channels in turn.
fn interleaved(planes: [&[u8]; 2]) -> Vec<u8> {
    let length = planes.map(<[u8]>::len).into_iter().max().unwrap_or_default();
    let sample =
        |plane: &[u8], at: usize| [0, 1].map(|byte| plane.get(at + byte).copied().unwrap_or_default());
    (0..length).step_by(2).flat_map(|at| planes.map(|plane| sample(plane, at)).concat()).collect()
}

impl Calls<'_> {
    /// Sends two utterances to a socket that is read between them. Returns all messages.
    async fn live(&self) -> Outcome<Value> {
        let options =
            Options::builder().model(Model::Nova3).smart_format(true).language(Language::en_US).build();
        let transcription = self.client.transcription();
        let mut handle = transcription
            .stream_request_with_options(options)
            .encoding(Encoding::Linear16)
            .sample_rate(16_000)
            .channels(1)
            .interim_results(true)
            .vad_events(true)
            .endpointing(Endpointing::CustomDurationMs(300))
            .utterance_end_ms(1_000)
            .keep_alive()
            .handle()
            .await?;
        let mut messages = Vec::new();
        let [first, second] = &self.utterances;
        let (start, end) = first.split_at(first.len() / 2 / PIECE * PIECE);
        send(&mut handle, start, PIECE).await?;
        read(&mut handle, &mut messages, |message| message["is_final"] == false).await?;
        send(&mut handle, end, PIECE).await?;
        // After the first there is nothing left to be said, which is answered, too.
        for _ in 0..2 {
            handle.finalize().await?;
            read(&mut handle, &mut messages, |message| message["from_finalize"] == true).await?;
        }
        // A pause ends the second utterance.
        send(&mut handle, &[&second[..], &[0; 20 * PIECE]].concat(), PIECE).await?;
        handle.close_stream().await?;
        read(&mut handle, &mut messages, |_| false).await?;
        Ok(messages.into())
    }

    async fn multichannel(&self) -> Outcome<Value> {
        let options = Options::builder().model(Model::Nova3).multichannel(true).punctuate(true).build();
        let transcription = self.client.transcription();
        let request = transcription.stream_request_with_options(options).encoding(Encoding::Linear16);
        let handle = request.sample_rate(16_000).channels(2).handle().await?;
        let [first, second] = &self.utterances;
        answer(handle, &interleaved([first, second]), 2 * PIECE).await
    }

    /// Sends a recording as it is, with a token as such.
    async fn container(&self) -> Outcome<Value> {
        let bearer = Deepgram::with_base_url_and_temp_token(self.gateway, &self.key)?;
        let options = Options::builder().model(Model::Nova3).build();
        let handle = bearer.transcription().stream_request_with_options(options).handle().await?;
        answer(handle, &self.recording, PIECE).await
    }

    /// Sends a recording with a short-lived key, which is of no use for anything but streams.
    async fn granted(&self) -> Outcome<Value> {
        let longer = GrantOptions::builder().ttl_seconds(60.0).build();
        let grants = [self.client.auth().grant(None).await?, self.client.auth().grant(Some(&longer)).await?];
        let page = Deepgram::with_base_url_and_temp_token(self.gateway, &grants[1].access_token)?;
        let options = Options::builder().model(Model::Nova3).build();
        let transcription = page.transcription();
        let request = transcription.stream_request_with_options(options.clone()).encoding(Encoding::Linear16);
        let messages =
            answer(request.sample_rate(16_000).handle().await?, &self.utterances[1], PIECE).await?;
        let source = AudioSource::from_buffer(self.recording.clone());
        Ok(json!({
            "grants": grants.map(|grant| json!({ "expires_in": grant.expires_in })),
            "messages": messages,
            "refusal": failure(transcription.prerecorded(source, &options).await),
        }))
    }

    /// Speaks a text that comes in pieces: up to a flush, up to a clear, and up to the end.
    async fn speak_live(&self) -> Outcome<Value> {
        let speak = self.client.text_to_speech();
        let request =
            speak.speak_stream().model(SpeechModel::Aura2ThaliaEn).encoding(SpeechEncoding::Linear16);
        let mut handle = request.sample_rate(24_000).handle().await?;
        let mut messages = Vec::new();
        for word in self.text.split(' ') {
            handle.speak(format!("{word} ")).await?;
        }
        handle.flush().await?;
        let flushed = until(&mut handle, &mut messages, "Flushed").await?;
        handle.speak("Nobody should hear the end of this sentence").await?;
        handle.clear().await?;
        let cleared = until(&mut handle, &mut messages, "Cleared").await?;
        handle.speak(self.text).await?;
        handle.close().await?;
        let closed = until(&mut handle, &mut messages, "the end").await?;
        let mut heard = Vec::new();
        for speech in [&flushed, &closed] {
            let rate = [("sample_rate".to_owned(), "24000".to_owned())];
            let options = Options::builder().encoding(Encoding::Linear16).query_params(rate);
            heard.push(self.transcribe(speech, options).await?);
        }
        let seconds = |pcm: &[u8]| pcm.len() as f64 / 48_000.0;
        let seconds =
            json!({ "flushed": seconds(&flushed), "cleared": seconds(&cleared), "closed": seconds(&closed) });
        Ok(json!({ "messages": messages, "heard": heard, "seconds": seconds }))
    }

    async fn transcribe(&self, audio: &[u8], options: OptionsBuilder) -> Outcome<Value> {
        let source = AudioSource::from_buffer(audio.to_vec());
        let options = options.model(Model::Nova3).build();
        let answer = self.client.transcription().prerecorded(source, &options).await?;
        let mut answer = to_value(answer)?;
        answer["class"] = "ListenV1Response".into();
        Ok(answer)
    }

    /// Writes a speech in each format to a file.
    async fn speeches(&self) -> Outcome<Value> {
        let options = || SpeechOptions::builder().model(SpeechModel::Aura2ThaliaEn);
        let linear = || options().encoding(SpeechEncoding::Linear16);
        let mut names = json!({});
        for (format, options) in [
            ("wav", linear().container(Container::Wav).sample_rate(16_000)),
            ("pcm", linear().container(Container::None).sample_rate(24_000)),
            ("mp3", options().encoding(SpeechEncoding::Mp3)),
            ("opus", options().encoding(SpeechEncoding::Opus).container(Container::Ogg)),
            ("flac", options().encoding(SpeechEncoding::Flac).sample_rate(24_000)),
        ] {
            let name = format!("spoken.{format}");
            let speak = self.client.text_to_speech();
            speak.speak_to_file(self.text, &options.build(), Path::new(&name)).await?;
            names[format] = name.into();
        }
        Ok(names)
    }

    async fn failures(&self) -> Value {
        let stranger =
            Deepgram::with_base_url_and_api_key(self.gateway, "wrong").expect("the address is one");
        let options = Options::builder().model(Model::Nova3).build();
        let key = stranger.transcription().stream_request_with_options(options.clone()).handle().await;
        let address = AudioSource::from_url("http://127.0.0.1/a.wav");
        let none = SpeechOptions::builder().model(SpeechModel::CustomId("none".to_owned())).build();
        json!({
            "key": failure(key),
            "address": failure(self.client.transcription().prerecorded(address, &options).await),
            "voice": failure(self.client.text_to_speech().speak_to_file(self.text, &none, Path::new("none")).await),
        })
    }
}

/// Reads a speech until a message of this type, or its end. Returns the audio.
async fn until(
    handle: &mut deepgram::speak::websocket::SpeakStreamHandle,
    messages: &mut Vec<Value>,
    kind: &str,
) -> Outcome<Vec<u8>> {
    let mut audio = Vec::new();
    while let Some(message) = handle.receive().await {
        let message = match message? {
            SpeakResponse::Audio(piece) => {
                audio.extend(piece);
                continue;
            }
            SpeakResponse::Metadata { model_name, .. } => {
                json!({ "type": "Metadata", "model_name": model_name })
            }
            SpeakResponse::Flushed { sequence_id, .. } => {
                json!({ "type": "Flushed", "sequence_id": sequence_id })
            }
            SpeakResponse::Cleared { sequence_id, .. } => {
                json!({ "type": "Cleared", "sequence_id": sequence_id })
            }
            other => return Err(format!("{other:?}").into()),
        };
        messages.push(message);
        if messages.last().is_some_and(|message| message["type"] == kind) {
            break;
        }
    }
    Ok(audio)
}

/// Returns the status of the error that a call ended with, which the error has as the cause of its cause.
fn failure<T>(result: Result<T, DeepgramError>) -> Value {
    match result {
        Err(DeepgramError::DeepgramApiError { err, body }) => {
            json!({ "status": err.status().map(|status| status.as_u16()), "body": body })
        }
        Err(other) => {
            let status = match &other {
                DeepgramError::WsError(error) => match &**error {
                    tokio_tungstenite::tungstenite::Error::Http(response) => Some(response.status().as_u16()),
                    _ => None,
                },
                _ => None,
            };
            json!({ "status": status, "body": other.to_string() })
        }
        Ok(_) => Value::Null,
    }
}

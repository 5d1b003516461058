//! The client `async-openai`.

mod realtime;

use std::fs;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::types::InputSource;
use async_openai::types::audio::{
    AudioInput, AudioResponseFormat, CreateSpeechRequest, CreateSpeechRequestArgs,
    CreateSpeechResponseStreamEvent, CreateTranscriptionRequestArgs, CreateTranslationRequest,
    CreateTranslationRequestArgs, SpeechModel, SpeechResponseFormat, StreamFormat, TimestampGranularity,
    TranscriptionChunkingStrategy, TranslationResponseFormat, Voice,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt, TryStreamExt};
use serde_json::{Map, Value, json, to_value};

use crate::Outcome;

/// The client, and the arguments.
struct Calls<'a> {
    client: Client<OpenAIConfig>,
    gateway: &'a str,
    stereo: &'a str,
    pause: &'a str,
    russian: &'a str,
    text: &'a str,
    utterances: [&'a str; 2],
}

/// Calls all methods. Returns their results.
pub(crate) async fn results(arguments: &[String]) -> Outcome<Value> {
    let [gateway, stereo, pause, russian, text, first, second] = arguments else {
        return Err("seven arguments are needed".into());
    };
    let client = Client::with_config(OpenAIConfig::new().with_api_base(format!("{gateway}/v1")));
    let calls = Calls { client, gateway, stereo, pause, russian, text, utterances: [first, second] };
    let mut results = calls.transcriptions().await?;
    results.append(&mut calls.translations().await?);
    results.append(&mut calls.speeches().await?);
    results.append(&mut calls.models().await?);
    results.insert("realtime".to_owned(), calls.realtime().await?);
    results.insert("failures".to_owned(), calls.failures().await);
    Ok(results.into())
}

/// Returns an object with these fields.
fn fields<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn file(name: &str) -> AudioInput {
    AudioInput { source: InputSource::Path { path: name.into() } }
}

fn transcription(recording: &str) -> CreateTranscriptionRequestArgs {
    let mut request = CreateTranscriptionRequestArgs::default();
    request.file(file(recording)).model("whisper-1");
    request
}

impl Calls<'_> {
    async fn transcriptions(&self) -> Outcome<Map<String, Value>> {
        let audio = self.client.audio();
        let calls = audio.transcription();
        let mut json = transcription(self.stereo);
        json.response_format(AudioResponseFormat::Json).language("en").temperature(0.0).prompt("A meeting.");
        let mut verbose = transcription(self.pause);
        verbose
            .response_format(AudioResponseFormat::VerboseJson)
            .timestamp_granularities([TimestampGranularity::Word, TimestampGranularity::Segment]);
        let mut diarized = transcription(self.stereo);
        diarized
            .response_format(AudioResponseFormat::DiarizedJson)
            .chunking_strategy(TranscriptionChunkingStrategy::Auto)
            .known_speaker_names(["Ann".to_owned()]);
        let raw = async |recording: &str, format| -> Outcome<Value> {
            let request = transcription(recording).response_format(format).build()?;
            Ok(String::from_utf8(calls.create_raw(request).await?.to_vec())?.into())
        };
        let stream = calls.create_stream(transcription(self.pause).build()?).await?;
        let events: Vec<_> = stream.try_collect().await?;
        Ok(fields([
            ("default", to_value(calls.create(transcription(self.stereo).build()?).await?)?),
            ("json", to_value(calls.create(json.build()?).await?)?),
            ("text", raw(self.stereo, AudioResponseFormat::Text).await?),
            ("srt", raw(self.pause, AudioResponseFormat::Srt).await?),
            ("vtt", raw(self.pause, AudioResponseFormat::Vtt).await?),
            ("verbose", to_value(calls.create_verbose_json(verbose.build()?).await?)?),
            ("diarized", to_value(calls.create_diarized_json(diarized.build()?).await?)?),
            ("stream", to_value(events)?),
        ]))
    }

    fn translation(&self, format: TranslationResponseFormat) -> Outcome<CreateTranslationRequest> {
        let mut request = CreateTranslationRequestArgs::default();
        Ok(request.file(file(self.russian)).model("whisper-1").response_format(format).build()?)
    }

    async fn translations(&self) -> Outcome<Map<String, Value>> {
        let audio = self.client.audio();
        let json = audio.translation().create(self.translation(TranslationResponseFormat::Json)?).await?;
        // The client's own type has the duration as a string, which the service never sends.
        let verbose = self.translation(TranslationResponseFormat::VerboseJson)?;
        let verbose: Value = serde_json::from_slice(&audio.translation().create_raw(verbose).await?)?;
        Ok(fields([("translation", to_value(json)?), ("verbose_translation", verbose)]))
    }

    fn speech(&self, format: SpeechResponseFormat, speed: f32) -> Outcome<CreateSpeechRequest> {
        let mut request = CreateSpeechRequestArgs::default();
        request.model(SpeechModel::Gpt4oMiniTts).voice(Voice::Onyx).input(self.text).response_format(format);
        Ok(request.speed(speed).build()?)
    }

    /// Writes a speech to a file, whose name is returned.
    async fn speak(&self, format: SpeechResponseFormat, speed: f32, name: &str) -> Outcome<Value> {
        let speech = self.client.audio().speech().create(self.speech(format, speed)?).await?;
        fs::write(name, speech.bytes)?;
        Ok(name.into())
    }

    async fn speeches(&self) -> Outcome<Map<String, Value>> {
        let speech = json!({
            "mp3": self.speak(SpeechResponseFormat::Mp3, 1.0, "speech.mp3").await?,
            "opus": self.speak(SpeechResponseFormat::Opus, 1.0, "speech.opus").await?,
            "flac": self.speak(SpeechResponseFormat::Flac, 1.0, "speech.flac").await?,
            "wav": self.speak(SpeechResponseFormat::Wav, 1.0, "speech.wav").await?,
            "pcm": self.speak(SpeechResponseFormat::Pcm, 1.0, "speech.pcm").await?,
        });
        let mut default = CreateSpeechRequestArgs::default();
        let default = default.model(SpeechModel::Tts1).voice(Voice::Nova).input(self.text).build()?;
        let audio = self.client.audio();
        let default = audio.speech().create(default).await?.bytes;
        let mut streamed = self.speech(SpeechResponseFormat::Pcm, 1.0)?;
        streamed.stream_format = Some(StreamFormat::SSE);
        let mut events = audio.speech().create_stream(streamed).await?;
        let (mut bytes, mut is_done) = (0, false);
        while let Some(event) = events.next().await {
            match event? {
                CreateSpeechResponseStreamEvent::SpeechAudioDelta(delta) => {
                    bytes += STANDARD.decode(delta.audio)?.len();
                }
                CreateSpeechResponseStreamEvent::SpeechAudioDone(_) => is_done = true,
            }
        }
        let heard = audio.transcription().create(transcription("speech.wav").build()?).await?;
        Ok(fields([
            ("speech", speech),
            ("fast_speech", self.speak(SpeechResponseFormat::Wav, 2.0, "fast.wav").await?),
            ("default_speech", format!("{:02x}{:02x}", default[0], default[1]).into()),
            ("streamed_speech", json!({ "bytes": bytes, "is_done": is_done })),
            ("heard", heard.text.into()),
        ]))
    }

    async fn models(&self) -> Outcome<Map<String, Value>> {
        let models = self.client.models().list().await?.data;
        let last = &models.last().ok_or("no models")?.id;
        let model = self.client.models().retrieve(last).await?;
        Ok(fields([("model", to_value(model)?), ("models", to_value(models)?)]))
    }

    async fn failures(&self) -> Value {
        let config = OpenAIConfig::new().with_api_base(format!("{}/v1", self.gateway)).with_api_key("wrong");
        let source = InputSource::VecU8 { filename: "file".to_owned(), vec: b"no recording".to_vec() };
        let mut none = CreateTranscriptionRequestArgs::default();
        let none = none.file(AudioInput { source }).model("whisper-1").build().expect("all fields are given");
        let audio = self.client.audio();
        let aac = self.speech(SpeechResponseFormat::Aac, 1.0).expect("all fields are given");
        json!({
            "key": failure(Client::with_config(config).models().list().await),
            "model": failure(self.client.models().retrieve("none").await),
            "file": failure(audio.transcription().create(none).await),
            "format": failure(audio.speech().create(aac).await),
        })
    }
}

/// Returns the error that a call ended with.
fn failure<T>(result: Result<T, OpenAIError>) -> Value {
    match result {
        Err(OpenAIError::ApiError(error)) => {
            json!({ "status": error.status_code.as_u16(), "param": error.api_error.param })
        }
        Err(other) => json!({ "other": other.to_string() }),
        Ok(_) => Value::Null,
    }
}

//! `POST /v1/audio/speech`: speech, streamed while it is synthesised.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::{Stream, StreamExt};
use http::header;
use serde::Deserialize;
use serde_json::json;

use super::error::OpenAiError;
use super::{API, voices};
use crate::authority::Scope;
use crate::dialects::clients::authorise;
use crate::dialects::texts::{self, MAX_CHARACTERS};
use crate::gateway::Gateway;
use crate::http::client::bearer;
use crate::http::error::ApiError;
use crate::http::sse;
use crate::speech::encoder::Format;
use crate::speech::synthesis::Synthesis;
use voxline::engine::{EngineError, language_of};
use voxline::error::chain;
use voxline::protocol::tts::PCM_RATE;

/// Speeds that the service takes. Voices speak at half to double speed, and no slower or faster.
const SPEEDS: std::ops::RangeInclusive<f32> = 0.25..=4.0;
/// Voice of a request that names none.
const VOICE: &str = "alloy";

/// Body of a request. Other fields, such as `model` and `instructions`, are ignored.
#[derive(Deserialize)]
struct SpeechRequest {
    input: String,
    voice: Option<VoiceName>,
    response_format: Option<String>,
    speed: Option<f32>,
    stream_format: Option<String>,
}

/// A voice, by its name or by an object with its name.
#[derive(Deserialize)]
#[serde(untagged)]
enum VoiceName {
    Name(String),
    Object { id: String },
}

pub(super) async fn speak(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    answer(&gateway, request).await.unwrap_or_else(OpenAiError::into_response)
}

async fn answer(gateway: &Gateway, request: Request) -> Result<Response, OpenAiError> {
    let identity = authorise(gateway, &request, bearer(request.headers()), Scope::Tts)?;
    let request: SpeechRequest = texts::read(gateway, request).await?;
    let events = match request.stream_format.as_deref() {
        None | Some("" | "audio") => false,
        Some("sse") => true,
        Some(_) => return Err(OpenAiError::invalid("stream_format", "stream_format is audio or sse")),
    };
    let synthesis = validate(gateway, request)?;
    let format = synthesis.format;
    let speech = gateway.speak(API, Some(&identity), synthesis).await?;
    if events {
        return Ok(sse::response(Body::from_stream(as_events(Box::pin(speech)))));
    }
    let mut response = Response::new(Body::from_stream(speech));
    let content_type = format.content_type();
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    Ok(response)
}

fn validate(gateway: &Gateway, request: SpeechRequest) -> Result<Synthesis, OpenAiError> {
    let SpeechRequest { input: text, voice, response_format, speed, .. } = request;
    let (characters, bytes) = (text.chars().count(), text.len());
    if characters > MAX_CHARACTERS {
        let message = format!("input is longer than {MAX_CHARACTERS} characters");
        return Err(OpenAiError::invalid("input", message));
    }
    if text.trim().is_empty() {
        return Err(OpenAiError::invalid("input", "input is empty"));
    }
    let format = format_named(response_format.as_deref().unwrap_or("mp3"))?;
    let tempo = speed.unwrap_or(1.0);
    if !SPEEDS.contains(&tempo) {
        let message = format!("speed {tempo} is not between {} and {}", SPEEDS.start(), SPEEDS.end());
        return Err(OpenAiError::invalid("speed", message));
    }
    let name = match voice {
        Some(VoiceName::Name(name) | VoiceName::Object { id: name }) => name,
        None => VOICE.to_owned(),
    };
    let aliases = &gateway.options.openai.voices;
    let voice = voices::find(&gateway.voices, aliases, &name, language_of(&text));
    let voice = voice.map_err(|error| OpenAiError::invalid("voice", error.to_string()))?;
    Ok(Synthesis { voice, text, tempo, format, characters, bytes })
}

/// Returns the format of that name.
fn format_named(name: &str) -> Result<Format, OpenAiError> {
    Ok(match name {
        "mp3" => Format::Mp3,
        "opus" => Format::Opus,
        "flac" => Format::Flac(PCM_RATE),
        "wav" => Format::Wav(PCM_RATE),
        "pcm" => Format::PcmLittleEndian(PCM_RATE),
        other => {
            let other: String = other.chars().take(40).collect();
            let message =
                format!("response_format '{other}' is not available; mp3, opus, flac, wav and pcm are");
            return Err(OpenAiError::invalid("response_format", message));
        }
    })
}

/// Returns the events of a speech.
fn as_events(
    speech: Pin<Box<dyn Stream<Item = Result<Bytes, EngineError>> + Send>>,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    let state = Some(speech);
    futures::stream::unfold(state, |state| async {
        let mut speech = state?;
        let (event, state) = match speech.next().await {
            Some(Ok(piece)) => {
                let audio = BASE64_STANDARD.encode(&piece);
                (json!({ "type": "speech.audio.delta", "audio": audio }), Some(speech))
            }
            Some(Err(error)) => {
                let error = OpenAiError::from(ApiError::internal(&chain(&error))).object();
                (json!({ "type": "error", "error": error }), None)
            }
            None => {
                // The service's clients need the three counts. Voices have no tokens.
                let usage = json!({ "input_tokens": 0, "output_tokens": 0, "total_tokens": 0 });
                (json!({ "type": "speech.audio.done", "usage": usage }), None)
            }
        };
        Some((Ok(sse::event(&event)), state))
    })
}

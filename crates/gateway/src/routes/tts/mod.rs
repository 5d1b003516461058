//! `GET|POST /tts`: speech synthesis, streamed while it runs.

mod form;
mod marks;
mod voices;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::Deserialize;

use crate::authority::{Amount, Identity, Scope};
use crate::gateway::Gateway;
use crate::http::body::{self, BadBody};
use crate::http::error::ApiError;
use crate::speech::encoder::Format;
use crate::speech::synthesis::Synthesis;
use voxline::engine::{EngineError, language_of};

/// Documented default of `model_name`.
const VOICE: &str = "katherine";

/// Limits of a synthesis request.
pub(crate) struct Limits {
    /// Longest text, in characters.
    pub(crate) characters: usize,
    pub(crate) tempo: RangeInclusive<f32>,
    /// Format of a request that names none.
    pub(crate) format: Format,
}

/// Documented limits. The documentation gives two limits of the length; this is the larger one.
const LIMITS: Limits = Limits { characters: 20_000, tempo: 0.75..=1.75, format: Format::PcmBigEndian };
/// Limits of the service's public demo, as its clients knew them.
pub(crate) const DEMO: Limits = Limits { characters: 1_024, tempo: 0.5..=2.0, format: Format::Mp3 };

#[derive(Default, Deserialize)]
pub(crate) struct Parameters {
    text: Option<String>,
    model_name: Option<String>,
    encoder: Option<String>,
    tempo: Option<String>,
}

/// Query of a request, or the reason why it can't be read, which no client learns without a valid token.
pub(crate) type QueryResult = Result<Query<Parameters>, QueryRejection>;

pub(crate) async fn get(
    State(gateway): State<Arc<Gateway>>,
    query: QueryResult,
    request: Request,
) -> Response {
    let answer = async move {
        let identity = gateway.authorise(&request, Scope::Tts)?;
        let Query(mut parameters) = query?;
        let text = parameters.text.take().unwrap_or_default();
        speak(&gateway, Some(&identity), &LIMITS, &parameters, &text).await
    };
    answer.await.unwrap_or_else(ApiError::into_response)
}

/// Answers `HEAD` as `GET` would be answered, as far as that is known without synthesis. Nothing is
/// charged.
pub(crate) async fn head(
    State(gateway): State<Arc<Gateway>>,
    query: QueryResult,
    request: Request,
) -> Response {
    let answer = || {
        let identity = gateway.authorise(&request, Scope::Tts)?;
        let Query(parameters) = query?;
        let text = parameters.text.as_deref().unwrap_or_default();
        let synthesis = validate(&gateway, &LIMITS, &parameters, text)?;
        gateway.authority.afford(&identity, Amount::text(synthesis.characters as u64))?;
        // The body has no known length, like that of speech.
        Ok(answer(
            synthesis.format,
            Body::from_stream(futures::stream::empty::<Result<Bytes, EngineError>>()),
        ))
    };
    answer().unwrap_or_else(ApiError::into_response)
}

pub(crate) async fn post(
    State(gateway): State<Arc<Gateway>>,
    query: QueryResult,
    request: Request,
) -> Response {
    let answer = async move {
        let identity = gateway.authorise(&request, Scope::Tts)?;
        let Query(mut parameters) = query?;
        let text =
            read_text(request, &LIMITS, gateway.options.connections.body_timeout, &mut parameters).await?;
        speak(&gateway, Some(&identity), &LIMITS, &parameters, &text).await
    };
    answer.await.unwrap_or_else(ApiError::into_response)
}

/// Reads the text of a request, plain or in a form. The other fields of a form become `parameters`. Any
/// other content type is ignored, since clients send many.
pub(crate) async fn read_text(
    request: Request,
    limits: &Limits,
    patience: Duration,
    parameters: &mut Parameters,
) -> Result<String, ApiError> {
    let may_be_form = form::is_announced(request.headers());
    // A character takes at most four bytes.
    let bytes = 4 * limits.characters;
    let limit = if may_be_form { form::longest(bytes) } else { bytes };
    let body = body::read(request.into_body(), limit, patience).await.map_err(|refused| match refused {
        BadBody::TooLarge => too_long(limits),
        BadBody::Late => ApiError::new(StatusCode::REQUEST_TIMEOUT, 408, "text did not arrive in time"),
        BadBody::NoRoom | BadBody::Broken => bad("text broke off"),
    })?;
    if may_be_form && let Some(text) = form::read(&body, parameters)? {
        return Ok(text);
    }
    String::from_utf8(body).map_err(|_| bad("text is not UTF-8"))
}

/// Returns the format that `name`, a value of `encoder`, stands for.
fn format_named(name: &str) -> Option<Format> {
    match name {
        "pcm" => Some(Format::PcmBigEndian),
        "mp3" => Some(Format::Mp3),
        "opus" => Some(Format::Opus),
        _ => None,
    }
}

/// Returns the error for an invalid request. Code 4051 is the documented one for text.
fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, 4051, message)
}

fn too_long(limits: &Limits) -> ApiError {
    bad(format!("text is longer than {} characters", limits.characters))
}

/// Validates a request.
fn validate(
    gateway: &Gateway,
    limits: &Limits,
    query: &Parameters,
    text: &str,
) -> Result<Synthesis, ApiError> {
    let (characters, bytes) = (text.chars().count(), text.len());
    if characters > limits.characters {
        return Err(too_long(limits));
    }
    let text = marks::spoken(text);
    if text.trim().is_empty() {
        return Err(bad("text is missing"));
    }
    // An empty parameter counts as absent.
    let given = |parameter: &'_ Option<String>| parameter.clone().filter(|value| !value.is_empty());
    let format = match given(&query.encoder) {
        None => limits.format,
        Some(name) => format_named(&name)
            .ok_or_else(|| bad(format!("encoder '{name}' is not available; pcm, mp3 and opus are")))?,
    };
    let tempo = match given(&query.tempo) {
        None => 1.0,
        Some(tempo) => tempo.parse().ok().filter(|tempo| limits.tempo.contains(tempo)).ok_or_else(|| {
            let (slowest, fastest) = (limits.tempo.start(), limits.tempo.end());
            bad(format!("tempo '{tempo}' is not between {slowest} and {fastest}"))
        })?,
    };
    let name = given(&query.model_name).unwrap_or_else(|| VOICE.to_owned());
    let found = voices::find(&gateway.voices, &name, language_of(&text));
    let voice = found.map_err(|error| bad(error.to_string()))?;
    Ok(Synthesis { voice, text, tempo, format, characters, bytes })
}

/// Returns the answer with the speech in `body`.
fn answer(format: Format, body: Body) -> Response {
    let mut response = Response::new(body);
    let content_type = format.content_type();
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// Synthesises `text`, and charges it to `identity`, if there is one.
pub(crate) async fn speak(
    gateway: &Gateway,
    identity: Option<&Identity>,
    limits: &Limits,
    parameters: &Parameters,
    text: &str,
) -> Result<Response, ApiError> {
    let synthesis = validate(gateway, limits, parameters, text)?;
    let format = synthesis.format;
    let speech = gateway.speak("tts", identity, synthesis).await?;
    Ok(answer(format, Body::from_stream(speech)))
}

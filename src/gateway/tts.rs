//! `GET|POST /tts`: text in, speech out while it is synthesised.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::authority::{Amount, Identity, Scope};
use super::body::{self, BadBody};
use super::error::ApiError;
use super::{Gateway, access};
use crate::audio::sample;
use crate::engine::{EngineError, Voice, language_of, sentences};
use crate::resample::Resampler;
use crate::speech::PCM_RATE;

/// The documented type of the PCM, whose rate is [`PCM_RATE`].
const PCM_TYPE: &str = "audio/l16;rate=24000;channels=1;endianness=big-endian";
/// The larger of the two documented limits.
const MAX_CHARS: usize = 20_000;
/// Documented; 1.0 where absent.
const TEMPO: std::ops::RangeInclusive<f32> = 0.75..=1.75;
/// Sentences synthesised ahead of a slow client.
const AHEAD: usize = 2;
/// How long a client may take nothing before it counts as gone.
const LISTENING_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
pub(super) struct Parameters {
    text: Option<String>,
    model_name: Option<String>,
    encoder: Option<String>,
    tempo: Option<String>,
}

/// What the query says, or why it can't be read: to be told to nobody without a token.
type Asked = Result<Query<Parameters>, QueryRejection>;

pub(super) async fn from_query(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
    request: Request,
) -> Response {
    let answer = async move {
        let identity = gateway.authorise(&request, Scope::Tts)?;
        let Query(mut parameters) = asked?;
        let text = parameters.text.take().unwrap_or_default();
        speak(&gateway, &identity, parameters, text).await
    };
    answer.await.unwrap_or_else(ApiError::into_response)
}

pub(super) async fn from_body(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
    request: Request,
) -> Response {
    let answer = async move {
        let identity = gateway.authorise(&request, Scope::Tts)?;
        let Query(parameters) = asked?;
        // No look at the content type: clients send all sorts.
        let text = read_text(request.into_body(), gateway.options.body_timeout).await?;
        speak(&gateway, &identity, parameters, text).await
    };
    answer.await.unwrap_or_else(ApiError::into_response)
}

async fn read_text(body: Body, patience: Duration) -> Result<String, ApiError> {
    // A character takes at most four bytes.
    let bytes = body::read(body, 4 * MAX_CHARS, patience).await.map_err(|refused| match refused {
        BadBody::TooLarge => bad(format!("text is longer than {MAX_CHARS} characters")),
        BadBody::Late => ApiError::new(StatusCode::REQUEST_TIMEOUT, 408, "text did not arrive in time"),
        BadBody::NoRoom | BadBody::Broken => bad("text broke off"),
    })?;
    String::from_utf8(bytes).map_err(|_| bad("text is not UTF-8"))
}

/// An error in what was asked. Code 4051 is the documented one for text.
fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, 4051, message)
}

async fn speak(
    gateway: &Gateway,
    identity: &Identity,
    parameters: Parameters,
    text: String,
) -> Result<Response, ApiError> {
    if text.trim().is_empty() {
        return Err(bad("text is missing"));
    }
    let characters = text.chars().count();
    if characters > MAX_CHARS {
        return Err(bad(format!("text is longer than {MAX_CHARS} characters")));
    }
    match parameters.encoder.as_deref() {
        None | Some("pcm") => {}
        Some(other) => return Err(bad(format!("encoder '{other}' is not available; pcm is"))),
    }
    let tempo = match parameters.tempo.as_deref() {
        None | Some("") => 1.0,
        Some(tempo) => tempo
            .parse()
            .ok()
            .filter(|tempo| TEMPO.contains(tempo))
            .ok_or_else(|| bad(format!("tempo '{tempo}' is not between 0.75 and 1.75")))?,
    };
    let name = parameters.model_name.as_deref().filter(|name| !name.is_empty());
    let voice = gateway
        .engines
        .voices
        .find(name, Some(language_of(&text)))
        .map_err(|error| bad(error.to_string()))?;

    let place = gateway.place()?;
    gateway.authority.charge(identity, Amount::text(characters as u64))?;
    let (sender, mut pcm) = mpsc::channel(AHEAD);
    let listener = Listener { sender, runtime: Handle::current() };
    access::spawn_blocking(move || {
        let _place = place;
        synthesise(&*voice, &text, tempo, &listener);
    });
    // The status depends on the first sentence; what fails later can only cut the body short.
    let first = match pcm.recv().await {
        Some(Ok(first)) => first,
        Some(Err(error)) => return Err(ApiError::internal(&error)),
        None => Bytes::new(),
    };
    let rest = futures::stream::poll_fn(move |cx| pcm.poll_recv(cx));
    let body = futures::stream::once(async { Ok(first) }).chain(rest);
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PCM_TYPE));
    Ok(response)
}

/// The client, as the thread that speaks to it sees it.
struct Listener {
    sender: mpsc::Sender<Result<Bytes, EngineError>>,
    runtime: Handle,
}

impl Listener {
    /// Hands on a piece, and waits for room. False where the client is gone, or takes nothing for too long.
    fn take(&self, piece: Result<Bytes, EngineError>) -> bool {
        let sending = async { timeout(LISTENING_TIMEOUT, self.sender.send(piece)).await };
        matches!(self.runtime.block_on(sending), Ok(Ok(())))
    }
}

/// Speaks sentence by sentence, until the end or until nobody listens.
fn synthesise(voice: &dyn Voice, text: &str, tempo: f32, listener: &Listener) {
    if let Err(error) = try_synthesise(voice, text, tempo, listener) {
        tracing::error!(%error, voice = voice.info().name, "synthesis failed");
        listener.take(Err(error));
    }
}

fn try_synthesise(voice: &dyn Voice, text: &str, tempo: f32, listener: &Listener) -> Result<(), EngineError> {
    // One resampler for the whole text: sentences join without a click.
    let mut resampler = Resampler::new(voice.info().sample_rate, PCM_RATE)
        .map_err(|error| EngineError::Inference { engine: "resampler", reason: error.to_string() })?;
    let mut output = Vec::new();
    for sentence in sentences(text) {
        let spoken: Vec<f32> = voice.speak(sentence, tempo)?.into_iter().map(sample::to_f32).collect();
        output.clear();
        resampler.push(&spoken, &mut output);
        if !listener.take(Ok(big_endian(&output))) {
            return Ok(());
        }
    }
    output.clear();
    resampler.finish(&mut output);
    listener.take(Ok(big_endian(&output)));
    Ok(())
}

fn big_endian(samples: &[f32]) -> Bytes {
    samples.iter().flat_map(|&value| sample::to_s16(value).to_be_bytes()).collect()
}

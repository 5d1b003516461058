//! `GET|POST /tts`: speech synthesis, streamed while it runs.

mod encoder;
mod form;
mod marks;
mod ogg_opus;
mod voices;

use std::ops::{ControlFlow, RangeInclusive};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::timeout;

use self::encoder::Format;
use crate::authority::{Amount, Identity, Scope};
use crate::gateway::Gateway;
use crate::http::body::{self, BadBody};
use crate::http::error::ApiError;
use crate::http::request_log;
use crate::metrics::Metrics;
use crate::scheduler;
use voxline::audio::sample;
use voxline::engine::{EngineError, Voice, language_of};
use voxline::error::chain;
use voxline::protocol::tts::PCM_RATE;
use voxline::resample::Resampler;
use voxline::sentences::sentences;

/// Documented default of `model_name`.
const VOICE: &str = "katherine";
/// Number of pieces synthesised ahead of a slow client: some ten seconds of Piper's speech, or as many
/// sentences of other voices.
const AHEAD: usize = 8;

/// Limits of a synthesis request.
pub(crate) struct Limits {
    /// Longest text, in characters.
    pub(crate) characters: usize,
    pub(crate) tempo: RangeInclusive<f32>,
    /// Format of a request that names none.
    pub(crate) format: Format,
}

/// Documented limits. The documentation gives two limits of the length; this is the larger one.
const LIMITS: Limits = Limits { characters: 20_000, tempo: 0.75..=1.75, format: Format::Pcm };
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
        let synthesis = Synthesis::read(&gateway, &LIMITS, &parameters, text)?;
        gateway.authority.afford(&identity, Amount::text(synthesis.characters as u64))?;
        // The body has no known length, like that of speech.
        Ok(synthesis.answer(Body::from_stream(futures::stream::empty::<Result<Bytes, EngineError>>())))
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

/// Returns the error for an invalid request. Code 4051 is the documented one for text.
fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, 4051, message)
}

fn too_long(limits: &Limits) -> ApiError {
    bad(format!("text is longer than {} characters", limits.characters))
}

/// A validated synthesis request.
struct Synthesis {
    voice: Arc<dyn Voice>,
    /// Text without its marks.
    text: String,
    tempo: f32,
    format: Format,
    /// Number of characters charged.
    characters: usize,
}

impl Synthesis {
    fn read(
        gateway: &Gateway,
        limits: &Limits,
        query: &Parameters,
        text: &str,
    ) -> Result<Synthesis, ApiError> {
        let characters = text.chars().count();
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
            Some(name) => Format::named(&name)
                .ok_or_else(|| bad(format!("encoder '{name}' is not available; pcm, mp3 and opus are")))?,
        };
        let tempo = match given(&query.tempo) {
            None => 1.0,
            Some(tempo) => {
                tempo.parse().ok().filter(|tempo| limits.tempo.contains(tempo)).ok_or_else(|| {
                    let (slowest, fastest) = (limits.tempo.start(), limits.tempo.end());
                    bad(format!("tempo '{tempo}' is not between {slowest} and {fastest}"))
                })?
            }
        };
        let name = given(&query.model_name).unwrap_or_else(|| VOICE.to_owned());
        let found = voices::find(&gateway.voices, &name, language_of(&text));
        let voice = found.map_err(|error| bad(error.to_string()))?;
        Ok(Synthesis { voice, text, tempo, format, characters })
    }

    fn answer(&self, body: Body) -> Response {
        let mut response = Response::new(body);
        let content_type = HeaderValue::from_static(self.format.content_type());
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }
}

/// Synthesises `text`, and charges it to `identity`, if there is one.
pub(crate) async fn speak(
    gateway: &Gateway,
    identity: Option<&Identity>,
    limits: &Limits,
    parameters: &Parameters,
    text: &str,
) -> Result<Response, ApiError> {
    let synthesis = Arc::new(Synthesis::read(gateway, limits, parameters, text)?);
    let capacity = gateway.capacity(identity);
    let place = capacity.place()?;
    if let Some(identity) = identity {
        gateway.authority.charge(identity, Amount::text(synthesis.characters as u64))?;
    }
    let metrics = gateway.metrics.clone();
    metrics.speech.characters.inc_by(synthesis.characters as u64);
    metrics.count_bytes("tts", "in", text.len());
    let started = scheduler::now();
    let (sender, mut pieces) = mpsc::channel(AHEAD);
    let ended = Arc::new(AtomicBool::new(false));
    let sink = ResponseSink {
        sender,
        runtime: Handle::current(),
        patience: gateway.options.connections.write_timeout,
        ended: ended.clone(),
        turns: capacity.voices.clone(),
        metrics: metrics.clone(),
    };
    let for_thread = synthesis.clone();
    request_log::spawn_blocking(move || {
        let _place = place;
        synthesise(&for_thread, &sink);
    });
    // The status depends on the first piece. A later failure can only cut the body short.
    let first = match pieces.recv().await {
        Some(Ok(first)) => first,
        Some(Err(error)) => return Err(ApiError::internal(&chain(&error))),
        None => return Err(ApiError::internal(&chain(&cut_short()))),
    };
    metrics.speech_after(started.elapsed());
    let rest = futures::stream::poll_fn(move |cx| {
        Poll::Ready(match ready!(pieces.poll_recv(cx)) {
            None if !ended.swap(true, Ordering::Relaxed) => Some(Err(cut_short())),
            piece => piece,
        })
    });
    let body = futures::stream::once(async { Ok(first) }).chain(rest);
    Ok(synthesis.answer(Body::from_stream(body)))
}

/// Returns the error for speech that ended too soon, although no voice failed.
fn cut_short() -> EngineError {
    EngineError::inference("voice", "speech was cut short")
}

/// The client, as seen by the thread that synthesises speech for it.
struct ResponseSink {
    sender: mpsc::Sender<Result<Bytes, EngineError>>,
    runtime: Handle,
    /// Longest time that the client may read nothing before it counts as gone.
    patience: Duration,
    /// True once all speech was handed on. A stream that ends earlier was cut short and must not look
    /// complete.
    ended: Arc<AtomicBool>,
    /// Permits for voices to speak at the same time.
    turns: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl ResponseSink {
    /// Hands on a piece, and waits for room. Returns false if the client is gone, or reads nothing for too
    /// long.
    fn take(&self, piece: Result<Bytes, EngineError>) -> bool {
        self.metrics.count_bytes("tts", "out", piece.as_ref().map_or(0, Bytes::len));
        self.wait_for_room(piece)
    }

    fn wait_for_room(&self, piece: Result<Bytes, EngineError>) -> bool {
        let sending = async { timeout(self.patience, self.sender.send(piece)).await };
        matches!(self.runtime.block_on(sending), Ok(Ok(())))
    }
}

/// A turn to synthesise. A slow client holds up no other: the turn ends while its piece waits to be read.
struct SynthesisTurn<'a> {
    sink: &'a ResponseSink,
    permit: Option<SemaphorePermit<'a>>,
}

impl SynthesisTurn<'_> {
    /// Waits for a turn. A client that leaves meanwhile gets a turn without a permit.
    fn take(sink: &ResponseSink) -> SynthesisTurn<'_> {
        let permit = sink.runtime.block_on(async {
            tokio::select! {
                permit = sink.turns.acquire() => permit.ok(),
                () = sink.sender.closed() => None,
            }
        });
        SynthesisTurn { sink, permit }
    }

    /// Hands on a piece like [`ResponseSink::take`], but gives the permit up while there is no room.
    fn hand_on(&mut self, piece: Bytes) -> bool {
        self.sink.metrics.count_bytes("tts", "out", piece.len());
        match self.sink.sender.try_send(Ok(piece)) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(piece)) => {
                self.permit = None;
                let taken = self.sink.wait_for_room(piece);
                if taken {
                    *self = SynthesisTurn::take(self.sink);
                }
                taken
            }
        }
    }
}

/// Synthesises a text sentence by sentence, to its end or until the client is gone.
fn synthesise(synthesis: &Synthesis, sink: &ResponseSink) {
    let spoken = catch_unwind(AssertUnwindSafe(|| try_synthesise(synthesis, sink)));
    let panicked = |_| Err(EngineError::inference("voice", "panic"));
    if let Err(error) = spoken.unwrap_or_else(panicked) {
        tracing::error!(error = %chain(&error), voice = synthesis.voice.info().name, "synthesis failed");
        sink.take(Err(error));
    }
}

fn try_synthesise(synthesis: &Synthesis, sink: &ResponseSink) -> Result<(), EngineError> {
    // One resampler serves the whole text, so that sentences join without a click.
    let mut resampler = Resampler::new(synthesis.voice.info().sample_rate, PCM_RATE)
        .map_err(|error| EngineError::inference("resampler", error))?;
    let mut encoder = synthesis.format.encoder()?;
    let mut output = Vec::new();
    for sentence in sentences(&synthesis.text) {
        let mut turn = SynthesisTurn::take(sink);
        if sink.sender.is_closed() {
            return Ok(());
        }
        let (mut unencodable, mut gone) = (None, false);
        synthesis.voice.speak_in_pieces(sentence, synthesis.tempo, &mut |spoken| {
            let spoken: Vec<f32> = spoken.iter().copied().map(sample::to_f32).collect();
            output.clear();
            resampler.push(&spoken, &mut output);
            sink.metrics.speech.spoken.inc_by(output.len() as f64 / f64::from(PCM_RATE));
            match encoder.push(&output) {
                Ok(piece) => gone = !piece.is_empty() && !turn.hand_on(piece),
                Err(error) => unencodable = Some(error),
            }
            if gone || unencodable.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if let Some(error) = unencodable {
            return Err(error);
        }
        if gone {
            return Ok(());
        }
    }
    output.clear();
    resampler.finish(&mut output);
    let rest = [encoder.push(&output)?, encoder.finish()?].concat();
    if sink.take(Ok(rest.into())) {
        sink.ended.store(true, Ordering::Relaxed);
    }
    Ok(())
}

//! Synthesis of a text on a thread of its own, streamed while it runs.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use futures::{Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, mpsc};
use tokio::time::timeout;

use super::encoder::Format;
use crate::http::error::ApiError;
use crate::http::request_log;
use crate::metrics::Metrics;
use crate::scheduler;
use voxline::audio::sample;
use voxline::engine::{EngineError, Voice};
use voxline::error::chain;
use voxline::resample::Resampler;
use voxline::sentences::sentences;

/// Number of pieces synthesised ahead of a slow client: some ten seconds of Piper's speech, or as many
/// sentences of other voices.
const AHEAD: usize = 8;

/// A validated synthesis request.
pub(crate) struct Synthesis {
    pub(crate) voice: Arc<dyn Voice>,
    pub(crate) text: String,
    pub(crate) tempo: f32,
    pub(crate) format: Format,
    /// Number of characters charged.
    pub(crate) characters: usize,
    /// Number of bytes of the text as it was received.
    pub(crate) bytes: usize,
}

/// Resources of a synthesis.
pub(crate) struct SpeechResources {
    /// Place among the requests, which is held until the thread has ended.
    pub(crate) place: OwnedSemaphorePermit,
    /// Permits for voices to speak at the same time.
    pub(crate) turns: Arc<Semaphore>,
    /// Longest time that the client may read nothing before it counts as gone.
    pub(crate) patience: Duration,
    pub(crate) metrics: Arc<Metrics>,
    /// API that asked, by which bytes are counted.
    pub(crate) api: &'static str,
}

/// Starts a synthesis, and waits for its first piece. Returns the encoded speech; an error in it cuts the
/// speech short.
///
/// # Errors
/// Returns [`ApiError`] if the synthesis fails before there is any speech.
pub(crate) async fn speak(
    synthesis: Synthesis,
    resources: SpeechResources,
) -> Result<impl Stream<Item = Result<Bytes, EngineError>> + Send + 'static, ApiError> {
    let SpeechResources { place, turns, patience, metrics, api } = resources;
    let started = scheduler::now();
    let (sender, mut pieces) = mpsc::channel(AHEAD);
    let ended = Arc::new(AtomicBool::new(false));
    let sink = ResponseSink {
        sender,
        runtime: Handle::current(),
        patience,
        ended: ended.clone(),
        turns,
        metrics: metrics.clone(),
        api,
    };
    request_log::spawn_blocking(move || {
        let _place = place;
        synthesise(&synthesis, &sink);
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
    Ok(futures::stream::once(async { Ok(first) }).chain(rest))
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
    api: &'static str,
}

impl ResponseSink {
    /// Hands on a piece, and waits for room. Returns false if the client is gone, or reads nothing for too
    /// long.
    fn take(&self, piece: Result<Bytes, EngineError>) -> bool {
        self.metrics.count_bytes(self.api, "out", piece.as_ref().map_or(0, Bytes::len));
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
        self.sink.metrics.count_bytes(self.sink.api, "out", piece.len());
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
    let sample_rate = synthesis.format.sample_rate();
    let mut resampler = Resampler::new(synthesis.voice.info().sample_rate, sample_rate)
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
            let seconds = output.len() as f64 / f64::from(sample_rate);
            sink.metrics.speech.spoken.get_or_create(&[("api", sink.api)]).inc_by(seconds);
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

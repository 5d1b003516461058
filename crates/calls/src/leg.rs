//! A leg of a call as a live session.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::event::{CallEvent, CallEventKind, Leg, LegAccount, Loss, WordTime, wall_time};
use super::media::{MediaDecoder, MediaError};
use super::peers::{MediaFormat, Packet};
use super::recording::CallRecording;
use super::timeline::{PacketCounts, Placed, Timeline};
use super::unfinished::{LegFiles, LegRecord};
use voxline::Client;
use voxline::audio::sample::{quantise, to_f32};
use voxline::audio::{FramePos, FrameRange};
use voxline::client::{Live, LiveAudio, StartError, Transcript, Transcription};
use voxline::error::chain;
use voxline::protocol::Latency;
use voxline::resample::{ResampleError, Resampler};
use voxline::session::{Ledger, Overflow};
use voxline::transcript::{FinalSegment, TranscriptEvent};

/// Highest rate of a session. Audio of a higher rate is resampled to [`RESAMPLED`].
const SESSION_RATE_MAX: u32 = 48_000;
/// Rate of a session whose audio is resampled: that of recognisers.
const RESAMPLED: u32 = 16_000;
/// Longest time for which a session may take no audio. It takes audio always, unless its task does not run.
const STUCK: Duration = Duration::from_secs(60);
/// Wait before audio is offered again to a session that had no room.
const RETRY: Duration = Duration::from_millis(20);
/// Time for which a session with a spool keeps trying while its service is away. A later process goes on
/// then.
const SPOOLED_PATIENCE: Duration = Duration::from_secs(24 * 3_600);
/// Time without a packet after which the text so far is wanted.
const QUIET: Duration = Duration::from_secs(1);

/// Reason a leg can't be recognised.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LegError {
    #[error(transparent)]
    Media(#[from] MediaError),
    #[error(transparent)]
    Rate(#[from] ResampleError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("spool directory: {0}")]
    Spool(#[from] io::Error),
    #[error("the session has taken no audio for {} s", STUCK.as_secs())]
    Stuck,
    #[error("the audio is ahead of the time of the call")]
    Ahead,
}

/// Values that the legs of a call share.
#[derive(Clone)]
pub(crate) struct LegContext {
    pub(crate) call: Arc<str>,
    /// Name of the call's files, which no other call has.
    pub(crate) stem: Arc<str>,
    /// Time of the call's beginning since the Unix epoch.
    pub(crate) epoch: Duration,
    pub(crate) client: Client,
    pub(crate) language: Option<String>,
    pub(crate) partials: bool,
    /// Directory for the sessions of legs, so that a later process can finish them.
    pub(crate) spool: Option<Arc<Path>>,
    pub(crate) events: mpsc::Sender<CallEvent>,
    pub(crate) forwarders: TaskTracker,
}

/// A leg with its timeline, its decoder and, once it has audio, its session.
pub(crate) struct CallLeg {
    leg: Leg,
    context: LegContext,
    sample_rate: u32,
    timeline: Timeline,
    decoder: MediaDecoder,
    resampler: Option<Resampler>,
    /// Buffer for what the timeline places.
    placed: Vec<Placed>,
    /// Pieces that are not decoded.
    pending: VecDeque<Placed>,
    /// Samples at the rate of the session that it has not taken.
    samples: Vec<i16>,
    session: Option<LegSession>,
    /// Time at which the session last took audio, and at which it is offered more, while it has no room.
    waiting: Option<(Duration, Duration)>,
    /// True once the leg was given up: what comes is ignored.
    has_failed: bool,
    /// Arrival of the last packet, until a flush was asked for.
    last_packet: Option<Duration>,
    /// Frames placed so far that were decoded or made up.
    position: u64,
    tape: Option<LegTape>,
    /// Audio that the network has lost, in seconds of the call, that was not told yet.
    losses: Vec<(f64, f64)>,
}

/// The audio of a leg for the recording of its call.
struct LegTape {
    recording: CallRecording,
    /// Position of the first of the samples since the beginning of the call, once there are some.
    start: Option<u64>,
    samples: Vec<i16>,
}

/// The session of a leg.
struct LegSession {
    audio: LiveAudio,
    results: AbortOnDropHandle<Ledger>,
    sample_rate: u32,
}

impl CallLeg {
    pub(crate) fn new(
        leg: Leg,
        format: MediaFormat,
        context: LegContext,
        recording: Option<CallRecording>,
    ) -> Result<CallLeg, LegError> {
        let sample_rate = format.sample_rate;
        let decoder = MediaDecoder::new(format)?;
        let resampler =
            (sample_rate > SESSION_RATE_MAX).then(|| Resampler::new(sample_rate, RESAMPLED)).transpose()?;
        Ok(CallLeg {
            leg,
            context,
            sample_rate,
            timeline: Timeline::new(sample_rate),
            decoder,
            resampler,
            placed: Vec::new(),
            pending: VecDeque::new(),
            samples: Vec::new(),
            session: None,
            waiting: None,
            has_failed: false,
            last_packet: None,
            position: 0,
            tape: recording.map(|recording| LegTape { recording, start: None, samples: Vec::new() }),
            losses: Vec::new(),
        })
    }

    /// Takes a packet that has come at `now`.
    pub(crate) fn push(&mut self, packet: Packet, now: Duration) -> Result<(), LegError> {
        if self.has_failed {
            return Ok(());
        }
        let frames = self.decoder.frames(&packet.payload);
        self.timeline.push(packet, frames, now, &mut self.placed);
        self.last_packet = Some(now);
        if self.timeline.is_ahead(now) { Err(LegError::Ahead) } else { self.advance(now) }
    }

    /// Does what is due at `now`: see [`deadline`](CallLeg::deadline).
    pub(crate) fn poll(&mut self, now: Duration) -> Result<(), LegError> {
        if self.has_failed {
            return Ok(());
        }
        self.timeline.poll(now, &mut self.placed);
        self.advance(now)?;
        if self.last_packet.is_some_and(|last| last + QUIET <= now) {
            let flushed = self.session.as_mut().map_or(Ok(true), |session| session.audio.try_flush());
            // The results of a session that has ended say why.
            let again = flushed.is_ok_and(|flushed| !flushed);
            self.last_packet = again.then(|| (now + RETRY).saturating_sub(QUIET));
        }
        Ok(())
    }

    /// Returns the next time at which [`poll`](CallLeg::poll) has something to do.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        if self.has_failed {
            return None;
        }
        let quiet = self.last_packet.map(|last| last + QUIET);
        let retry = self.waiting.map(|(_, retry)| retry);
        self.timeline.deadline().into_iter().chain(quiet).chain(retry).min()
    }

    /// Gives the leg up: what comes is ignored, and what the session has is still recognised.
    pub(crate) fn fail(&mut self) {
        self.has_failed = true;
        self.pending.clear();
        self.samples.clear();
    }

    /// Ends the audio at `now`: no packet follows, and those that wait are taken as they are.
    pub(crate) fn end(&mut self, now: Duration) -> Result<(), LegError> {
        if self.has_failed {
            return Ok(());
        }
        self.timeline.finish(&mut self.placed);
        self.advance(now)
    }

    /// Waits until all audio is final, after its [end](CallLeg::end). Returns the account of the leg, if it
    /// had audio.
    pub(crate) async fn finish(mut self) -> Option<LegAccount> {
        let LegSession { mut audio, results, sample_rate } = self.session.take()?;
        while !self.samples.is_empty() || self.decode_next() {
            if audio.push(&self.samples).await.is_err() {
                break;
            }
            self.samples.clear();
        }
        if let Some(tape) = &mut self.tape {
            tape.hand_on(self.leg);
        }
        if let Some(resampler) = &mut self.resampler {
            let mut rest = Vec::new();
            resampler.finish(&mut rest);
            let _ = audio.push(&quantise(&rest)).await;
        }
        let _ = audio.finish().await;
        let ledger = results.await.unwrap_or_default();
        Some(LegAccount::new(ledger, sample_rate, self.timeline.counts()))
    }

    /// Hands what the timeline has placed to the session, as far as that has room.
    fn advance(&mut self, now: Duration) -> Result<(), LegError> {
        self.pending.extend(self.placed.drain(..));
        while !self.samples.is_empty() || self.decode_next() {
            if self.session.is_none() {
                self.session = Some(self.begin()?);
            }
            let session = self.session.as_mut().expect("it has begun");
            // The results of a session that has ended say why.
            let taken = session.audio.try_push(&self.samples).unwrap_or(self.samples.len());
            self.samples.drain(..taken);
            if !self.samples.is_empty() {
                let last = self.waiting.map_or(now, |(last, _)| if taken > 0 { now } else { last });
                self.waiting = Some((last, now + RETRY));
                return if now.saturating_sub(last) > STUCK { Err(LegError::Stuck) } else { Ok(()) };
            }
        }
        self.waiting = None;
        Ok(())
    }

    /// Decodes the next piece, or a second of a longer one. Returns whether there was one.
    fn decode_next(&mut self) -> bool {
        let second = u64::from(self.sample_rate);
        let Some(piece) = self.pending.pop_front() else { return false };
        let frames = match piece {
            Placed::Audio(packet) => {
                self.decoder.decode(&packet.payload, &mut self.samples);
                self.decoder.frames(&packet.payload)
            }
            Placed::Lost(lost) => {
                let frames = lost.min(second);
                if frames < lost {
                    self.pending.push_front(Placed::Lost(lost - frames));
                }
                self.decoder.conceal(frames, &mut self.samples);
                self.note_loss(frames);
                frames
            }
            Placed::Silence(silent) => {
                let frames = silent.min(second);
                if frames < silent {
                    self.pending.push_front(Placed::Silence(silent - frames));
                }
                self.decoder.silence(frames, &mut self.samples);
                frames
            }
        };
        self.position += frames;
        if let Some(tape) = &mut self.tape {
            let origin = self.timeline.origin().unwrap_or_default();
            let origin = origin.as_millis() as u64 * second / 1_000;
            tape.push(self.leg, origin, &self.samples, self.sample_rate as usize);
        }
        if let Some(resampler) = &mut self.resampler {
            let input: Vec<f32> = self.samples.drain(..).map(to_f32).collect();
            let mut output = Vec::new();
            resampler.push(&input, &mut output);
            self.samples.extend(quantise(&output));
        }
        true
    }

    /// Notes that the next frames are lost. Losses that touch are one.
    fn note_loss(&mut self, frames: u64) {
        let (start, end) = (self.seconds(self.position), self.seconds(self.position + frames));
        match self.losses.last_mut() {
            Some((_, last)) if *last == start => *last = end,
            _ => self.losses.push((start, end)),
        }
    }

    /// Returns the start and the end of audio that the network has lost since the last call.
    pub(crate) fn take_losses(&mut self) -> Vec<(f64, f64)> {
        std::mem::take(&mut self.losses)
    }

    /// Returns the time of a position of the peer's audio, in seconds since the beginning of the call.
    fn seconds(&self, position: u64) -> f64 {
        let origin = self.timeline.origin().unwrap_or_default();
        origin.as_secs_f64() + position as f64 / f64::from(self.sample_rate)
    }

    /// Begins the session: the first audio has come.
    fn begin(&self) -> Result<LegSession, LegError> {
        let sample_rate = if self.resampler.is_some() { RESAMPLED } else { self.sample_rate };
        let record = LegRecord {
            call: self.context.call.to_string(),
            stem: self.context.stem.to_string(),
            leg: self.leg,
            epoch: self.context.epoch,
            origin: self.timeline.origin().unwrap_or_default(),
            sample_rate,
            language: self.context.language.clone(),
        };
        let files = match &self.context.spool {
            Some(directory) => Some(LegFiles::create(directory, &record)?),
            None => None,
        };
        let LegContext { client, partials, forwarders, .. } = &self.context;
        let live = transcription(client, &record, files.as_ref()).partials(*partials);
        let (audio, transcript) = live.overflow(Overflow::DropOldest).start()?;
        let forwarder = EventForwarder { record, files, events: self.context.events.clone() };
        Ok(LegSession {
            audio,
            results: AbortOnDropHandle::new(forwarders.spawn(forwarder.forward(transcript))),
            sample_rate,
        })
    }
}

impl LegTape {
    /// Takes samples that follow those before; the first is at `origin`. Hands them on by the second.
    fn push(&mut self, leg: Leg, origin: u64, samples: &[i16], second: usize) {
        self.start.get_or_insert(origin);
        self.samples.extend_from_slice(samples);
        if self.samples.len() >= second {
            self.hand_on(leg);
        }
    }

    fn hand_on(&mut self, leg: Leg) {
        if let Some(start) = &mut self.start
            && !self.samples.is_empty()
        {
            let samples = std::mem::take(&mut self.samples);
            let end = *start + samples.len() as u64;
            self.recording.write(leg, *start, samples);
            *start = end;
        }
    }
}

/// Returns the transcription of a leg with these files.
fn transcription(client: &Client, record: &LegRecord, files: Option<&LegFiles>) -> Transcription<Live> {
    let live = client.live(record.sample_rate);
    let live = record.language.iter().fold(live, Transcription::<Live>::language);
    files.into_iter().fold(live, |live, files| live.patience(SPOOLED_PATIENCE).spool(files.spool()))
}

/// Finishes a leg whose process was killed. Returns its account.
pub(crate) async fn finish_left(
    client: Client,
    record: LegRecord,
    files: LegFiles,
    events: mpsc::Sender<CallEvent>,
) -> Result<LegAccount, LegError> {
    let sample_rate = record.sample_rate;
    let live = transcription(&client, &record, Some(&files)).partials(false);
    let (audio, transcript) =
        live.settings(|settings| settings.request.latency = Latency::Relaxed).start()?;
    // The session has the audio of the earlier process, and there is no more.
    let finished = audio.finish();
    let told = EventForwarder { record, files: Some(files), events }.forward(transcript);
    let (_, ledger) = tokio::join!(finished, told);
    Ok(LegAccount::new(ledger, sample_rate, PacketCounts::default()))
}

/// A forwarder of the results of a session, as events of its call.
struct EventForwarder {
    record: LegRecord,
    files: Option<LegFiles>,
    events: mpsc::Sender<CallEvent>,
}

impl EventForwarder {
    /// Forwards all results. Returns the session's account.
    async fn forward(self, mut transcript: Transcript) -> Ledger {
        let call: Arc<str> = self.record.call.as_str().into();
        let stem: Arc<str> = self.record.stem.as_str().into();
        while let Some(result) = transcript.next().await {
            let kind = match result {
                Ok(event) => self.event(event),
                Err(error) => Some(CallEventKind::Failed { error: chain(&error).to_string() }),
            };
            let Some(kind) = kind else { continue };
            let (call, stem) = (call.clone(), stem.clone());
            let event = CallEvent { call, stem, leg: Some(self.record.leg), kind };
            // Without a reader of events the session is of no use, but its account is.
            let _ = self.events.send(event).await;
        }
        if let Some(files) = &self.files
            && !transcript.is_resumable()
        {
            match transcript.remove_spool() {
                Ok(()) => files.remove(),
                Err(error) => {
                    tracing::warn!(%call, error = %chain(&error), "spool of a leg can't be deleted");
                }
            }
        }
        transcript.ledger()
    }

    fn event(&self, event: TranscriptEvent) -> Option<CallEventKind> {
        match event {
            TranscriptEvent::Partial { range, text, .. } => {
                let (start, end) = self.seconds(range);
                Some(CallEventKind::Partial { start, end, text })
            }
            TranscriptEvent::Final(segment) if !segment.text.is_empty() => Some(self.final_event(segment)),
            TranscriptEvent::Gap { range } => {
                let (start, end) = self.seconds(range);
                Some(CallEventKind::Gap { start, end, lost: Loss::Session })
            }
            _ => None,
        }
    }

    fn final_event(&self, segment: FinalSegment) -> CallEventKind {
        let FinalSegment { index, range, text, language, confidence, words, .. } = segment;
        let (start, end) = self.seconds(range);
        let words = words.into_iter().map(|word| {
            let (start, end) = self.seconds(word.range);
            WordTime { start, end, text: word.text, confidence: word.confidence }
        });
        let time = wall_time(self.record.epoch + Duration::from_secs_f64(start));
        CallEventKind::Final { index, start, end, time, text, language, confidence, words: words.collect() }
    }

    fn seconds(&self, range: FrameRange) -> (f64, f64) {
        let LegRecord { origin, sample_rate, .. } = self.record;
        let seconds = |position: FramePos| origin.as_secs_f64() + position.0 as f64 / f64::from(sample_rate);
        (seconds(range.start), seconds(range.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An hour of silence is taken by the second, as the session has room: it neither fails the leg nor is it
    /// in memory at once.
    #[tokio::test]
    async fn a_long_silence_is_handed_on_piece_by_piece() {
        let client = Client::builder("http://127.0.0.1:1").service_token("token".to_owned()).build().unwrap();
        let (events, _reader) = mpsc::channel(16);
        let context = LegContext {
            call: "call".into(),
            stem: "stem".into(),
            epoch: Duration::ZERO,
            client,
            language: None,
            partials: false,
            spool: None,
            events,
            forwarders: TaskTracker::new(),
        };
        let mut leg = CallLeg::new(Leg::Customer, MediaFormat::default(), context, None).unwrap();
        leg.placed.push(Placed::Silence(3_600 * 8_000));
        let mut now = Duration::ZERO;
        leg.advance(now).unwrap();
        assert!(leg.deadline().is_some(), "more is offered soon");
        while let Some(deadline) = leg.deadline() {
            assert!(leg.samples.len() <= 8_000, "{} samples are in memory", leg.samples.len());
            now = deadline.max(now);
            leg.poll(now).unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(leg.position, 3_600 * 8_000);
    }
}

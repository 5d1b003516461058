//! A live recognition that code feeds with PCM and takes events from: what each dialect is a translation of.
//!
//! It is a session like that of a socket, with the same admission, budgets, queue and recogniser, but it has
//! one feeder for life. So nothing is resumed, and each final is kept only until it is taken.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::credential::OpeningToken;
use super::manager::{BeginError, SessionManager};
use super::message_rate_limiter::CONTROL_RATE;
use super::session::{Rejection, Session};
pub(crate) use super::state::Partial;
use super::supervision::{STOPPING, UNANSWERED};
use crate::authority::{AuthorityError, Exhausted};
use voxline::audio::{AudioChunk, FRAME_BYTES, FramePos};
use voxline::engine::RecognitionRequest;
use voxline::protocol::{Final, Start};

/// Parameters of a live recognition.
pub(crate) struct LiveSettings {
    /// API that the audio is counted for in the metrics.
    pub(crate) api: &'static str,
    /// Rate of the PCM, in Hz.
    pub(crate) sample_rate: u32,
    pub(crate) request: RecognitionRequest,
    pub(crate) partials: bool,
}

/// Result of a live recognition. Events are in the order of the audio.
#[derive(Debug)]
pub(crate) enum LiveEvent {
    /// A partial result for the audio after the last final.
    Partial(Partial),
    Final {
        segment: Final,
        /// True if a flush is complete with this final.
        ends_flush: bool,
    },
    /// A flush that is complete, and that no final completed: all audio was final before.
    Flushed,
    /// The end of the recognition: all audio is final.
    End,
}

/// Reason for the end of a live recognition that is not its own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LiveEnd {
    #[error("the client is gone")]
    Lost,
    #[error("{UNANSWERED}")]
    Unanswered,
    #[error("message is too big")]
    TooBig,
    #[error("message can't be read")]
    Malformed,
    #[error("more than {CONTROL_RATE} control messages a second")]
    Flood,
    #[error(transparent)]
    Token(AuthorityError),
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    #[error("the recogniser failed")]
    Failed,
    #[error("{STOPPING}")]
    Stopping,
}

/// A live recognition. Dropping it ends the session, and frees its place.
pub(crate) struct LiveSession {
    manager: Arc<SessionManager>,
    session: Arc<Session>,
    attachment: u64,
    opener: Arc<OpeningToken>,
    api: &'static str,
    /// Position after the audio pushed so far.
    end: FramePos,
    /// Segment and revision of the last partial result taken.
    partial_taken: Option<(u64, u64)>,
    /// Numbers of the flushes that are not reported yet, in order.
    flushes: VecDeque<u64>,
    is_finished: bool,
    has_ended: bool,
    changes: watch::Receiver<()>,
}

impl LiveSession {
    /// Begins a recognition for the holder of `opener`.
    ///
    /// # Errors
    /// Returns [`BeginError`] if there is no room, or the request is not supported.
    pub(crate) fn begin(
        manager: &Arc<SessionManager>,
        opener: &Arc<OpeningToken>,
        settings: LiveSettings,
    ) -> Result<LiveSession, BeginError> {
        let LiveSettings { api, sample_rate, request, partials } = settings;
        let request = manager.recognizer_capabilities().supported_part(request);
        let start = Start {
            partials,
            task: request.task,
            prompt: request.prompt.clone(),
            keywords: request.keywords.clone(),
            accuracy: request.accuracy,
            ..Start::new(sample_rate)
        };
        let session = manager.begin(&opener.identity, api, &start, request)?;
        let attachment = session.attach(0).expect("a session that begins is not over").attachment;
        Ok(LiveSession {
            manager: manager.clone(),
            changes: session.state().watch(),
            session,
            attachment,
            opener: opener.clone(),
            api,
            end: FramePos::ZERO,
            partial_taken: None,
            flushes: VecDeque::new(),
            is_finished: false,
            has_ended: false,
        })
    }

    /// Returns the rate of the PCM, in Hz.
    pub(crate) fn sample_rate(&self) -> u32 {
        self.session.sample_rate()
    }

    /// Returns the time of a position in seconds since the first frame.
    pub(crate) fn seconds(&self, position: FramePos) -> f64 {
        position.0 as f64 / f64::from(self.session.sample_rate())
    }

    /// Returns the position after the audio pushed so far.
    pub(crate) fn end(&self) -> FramePos {
        self.end
    }

    /// Returns whether another push is welcome: otherwise the recogniser is so far behind that the client
    /// must wait.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.session.state().lock();
        self.session.acknowledged(&state) == state.input.received
    }

    /// Takes the next audio, 16-bit little-endian PCM of at most 30 seconds. Audio after the end is dropped.
    ///
    /// # Errors
    /// Returns [`LiveEnd::Exhausted`] if the token has no audio left.
    pub(crate) fn push(&mut self, pcm: Bytes) -> Result<(), LiveEnd> {
        if pcm.is_empty() || self.is_finished {
            return Ok(());
        }
        let end = self.end + (pcm.len() / FRAME_BYTES) as u64;
        let chunk = AudioChunk::new(self.end.to(end), pcm);
        let identity = &self.opener.identity;
        // The socket counts the bytes, which differ from those of the PCM.
        let charge = |milliseconds| self.manager.charge(identity, self.api, milliseconds, 0);
        self.session.audio(self.attachment, &chunk, charge)?;
        self.end = end;
        Ok(())
    }

    /// Ends the utterance here. The end of the flush is reported by an event.
    pub(crate) fn flush(&mut self) -> Result<(), LiveEnd> {
        if !self.is_finished {
            self.flushes.push_back(self.session.flush(self.attachment, None)?);
        }
        Ok(())
    }

    /// Ends the audio. The end of the recognition is reported by an event.
    pub(crate) fn finish(&mut self) {
        self.is_finished = true;
        self.session.close();
    }

    /// Returns the next event, if there is one.
    ///
    /// # Errors
    /// Returns [`LiveEnd::Failed`] if the recogniser failed.
    pub(crate) fn next_event(&mut self) -> Result<Option<LiveEvent>, LiveEnd> {
        let mut state = self.session.state().lock();
        let results = &mut state.results;
        if results.failed {
            return Err(LiveEnd::Failed);
        }
        let flush = self.flushes.front().copied().filter(|flush| *flush <= results.flushes);
        let flush_end = flush.map(|flush| results.flush_end(flush));
        if let Some(flush) = flush.filter(|_| flush_end.is_some_and(|end| results.taken >= end)) {
            self.flushes.pop_front();
            results.forget_flushes(flush);
            return Ok(Some(LiveEvent::Flushed));
        }
        if !results.finals.is_empty() {
            let segment = results.finals.remove(0);
            results.taken += 1;
            let ended = flush.filter(|_| flush_end == Some(results.taken));
            if let Some(flush) = ended {
                self.flushes.pop_front();
                results.forget_flushes(flush);
            }
            let ends_flush = ended.is_some();
            return Ok(Some(LiveEvent::Final { segment, ends_flush }));
        }
        let segment = results.taken;
        let is_news = |partial: &&Partial| self.partial_taken != Some((segment, partial.revision));
        if let Some(partial) = results.partial.as_ref().filter(is_news) {
            self.partial_taken = Some((segment, partial.revision));
            return Ok(Some(LiveEvent::Partial(partial.clone())));
        }
        if results.done && !self.has_ended {
            self.has_ended = true;
            return Ok(Some(LiveEvent::End));
        }
        Ok(None)
    }

    /// Returns the text of the current partial result, whether it was taken or not.
    pub(crate) fn partial(&self) -> Option<String> {
        let state = self.session.state().lock();
        state.results.partial.as_ref().map(|partial| partial.text.clone())
    }

    /// Returns whether the client waits for the recogniser: for the end of a flush or of the recognition, or
    /// because it has not heard all audio.
    pub(crate) fn owes_results(&self) -> bool {
        let is_ending = self.is_finished && !self.has_ended;
        is_ending || !self.flushes.is_empty() || self.session.state().lock().results.heard < self.end
    }

    /// Returns whether the recogniser has heard all audio up to `position` and no speech is open after the
    /// last final.
    pub(crate) fn is_quiet_at(&self, position: FramePos) -> bool {
        let state = self.session.state().lock();
        let results = &state.results;
        results.heard >= position && results.finals.is_empty() && results.partial.is_none()
    }

    /// Waits for a change since the last one. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        self.changes.changed().await.expect("the session holds the state");
    }
}

impl Drop for LiveSession {
    fn drop(&mut self) {
        self.session.end(self.attachment);
        self.manager.registry.remove(self.session.name());
        tracing::info!(session = self.session.name(), api = self.api, done = self.has_ended, "session ended");
    }
}

impl From<Rejection> for LiveEnd {
    fn from(rejection: Rejection) -> LiveEnd {
        match rejection {
            Rejection::Exhausted(exhausted) => exhausted.into(),
            Rejection::Flood => LiveEnd::Flood,
            // invariant: a session without sockets doesn't move, and its feeder keeps to positions and window
            Rejection::Moved | Rejection::Violation(_) => {
                tracing::error!(%rejection, "live session refused its audio");
                LiveEnd::Failed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use secrecy::ExposeSecret;
    use tokio::time::timeout;

    use super::*;
    use crate::authority::{Authority, Scope, Terms};
    use voxline::engine::Recognizer;
    use voxline_support::clock::SystemClock;
    use voxline_testing::{DigestRecognizer, digest};

    const RATE: usize = 16_000;

    fn manager() -> (Arc<SessionManager>, Arc<OpeningToken>) {
        let authority =
            Authority::in_memory(Duration::from_secs(3_600), Arc::new(SystemClock::new())).unwrap();
        authority.create_project("test").unwrap();
        let minted = authority.create_service_token("test", Terms::default()).unwrap();
        let identity = authority.authorise(minted.token.expose_secret(), Scope::AsrStream, None).unwrap();
        let opener = Arc::new(OpeningToken::new(identity, Duration::ZERO));
        let recognizer: Arc<dyn Recognizer> = Arc::new(DigestRecognizer::new(RATE));
        (Arc::new(SessionManager::with_defaults(authority, Some(recognizer))), opener)
    }

    fn begun(manager: &Arc<SessionManager>, opener: &Arc<OpeningToken>) -> LiveSession {
        let request = RecognitionRequest::new();
        let settings = LiveSettings { api: "test", sample_rate: RATE as u32, request, partials: false };
        LiveSession::begin(manager, opener, settings).unwrap()
    }

    /// Returns a second of audio that differs from every other one.
    fn second(number: usize) -> Vec<i16> {
        vec![(number as u16).cast_signed(); RATE]
    }

    fn push(session: &mut LiveSession, pcm: &[i16]) {
        session.push(pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect()).unwrap();
    }

    async fn event(session: &mut LiveSession) -> LiveEvent {
        let waiting = async {
            loop {
                if let Some(event) = session.next_event().unwrap() {
                    return event;
                }
                session.changed().await;
            }
        };
        timeout(Duration::from_secs(60), waiting).await.expect("an event")
    }

    #[tokio::test]
    async fn finals_are_kept_until_they_are_taken() {
        let (manager, opener) = manager();
        let mut session = begun(&manager, &opener);
        for number in 0..1_000 {
            push(&mut session, &second(number));
            let LiveEvent::Final { segment, ends_flush: false } = event(&mut session).await else {
                panic!("no final of second {number}");
            };
            let range = (segment.index, segment.start.0, segment.end.0 - segment.start.0);
            assert_eq!(range, (number as u64, (number * RATE) as u64, RATE as u64));
            assert_eq!(segment.text, digest(&second(number)));
            assert!(session.has_room());
        }
        let results = &session.session.state().lock().results;
        assert_eq!((results.finals.len(), results.count()), (0, 1_000));
    }

    #[tokio::test]
    async fn each_flush_is_reported_once() {
        let (manager, opener) = manager();
        let mut session = begun(&manager, &opener);
        session.flush().unwrap();
        assert!(matches!(event(&mut session).await, LiveEvent::Flushed), "nothing is left to be said");
        push(&mut session, &second(1)[..1_000]);
        session.flush().unwrap();
        session.flush().unwrap();
        assert!(matches!(event(&mut session).await, LiveEvent::Final { ends_flush: true, .. }));
        assert!(matches!(event(&mut session).await, LiveEvent::Flushed));
        push(&mut session, &second(2)[..1_000]);
        session.finish();
        // No audio and no flush follow the end.
        push(&mut session, &second(3));
        session.flush().unwrap();
        assert!(matches!(event(&mut session).await, LiveEvent::Final { ends_flush: false, .. }));
        assert!(matches!(event(&mut session).await, LiveEvent::End));
        assert!(session.next_event().unwrap().is_none());
        assert_eq!(session.end(), FramePos(2_000));
    }

    #[tokio::test]
    async fn flushes_that_complete_at_once_end_with_their_own_finals() {
        let (manager, opener) = manager();
        let mut session = begun(&manager, &opener);
        for number in 0..3 {
            push(&mut session, &second(number)[..10_000]);
            session.flush().unwrap();
        }
        let all_complete = async {
            while session.session.state().lock().results.flushes < 3 {
                session.changed().await;
            }
        };
        timeout(Duration::from_secs(60), all_complete).await.expect("the flushes");
        for number in 0..3 {
            let LiveEvent::Final { segment, ends_flush: true } = event(&mut session).await else {
                panic!("flush {number} has no final");
            };
            assert_eq!(segment.text, digest(&second(number)[..10_000]));
        }
        assert!(session.session.state().lock().results.flush_ends.is_empty());
    }

    #[tokio::test]
    async fn a_session_that_is_dropped_leaves_its_place() {
        let (manager, opener) = manager();
        let session = begun(&manager, &opener);
        assert_eq!(manager.registry.count(), 1);
        drop(session);
        assert_eq!(manager.registry.count(), 0);
    }
}

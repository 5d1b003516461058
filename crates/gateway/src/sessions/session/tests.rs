//! Tests of sessions whose recogniser blocks.

use std::num::NonZero;
use std::sync::{Mutex, mpsc};

use bytes::Bytes;

use super::*;
use crate::batch_log::BatchLog;
use crate::metrics::{Metrics, TokenCounters};
use voxline::engine::{PartialResult, RecognizerStream, Segment};
use voxline_testing::DigestRecognizer;

const RATE: u64 = 16_000;

/// A recogniser that reports when it receives audio, and then blocks until it is released.
struct Stuck {
    begun: mpsc::Sender<()>,
    release: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Recognizer for Stuck {
    fn name(&self) -> &str {
        "stuck"
    }

    fn start(&self, _: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
        Ok(Box::new(Stuck { begun: self.begun.clone(), release: self.release.clone() }))
    }
}

impl RecognizerStream for Stuck {
    fn push(&mut self, _: &[i16]) -> Result<Vec<Segment>, EngineError> {
        let _ = self.begun.send(());
        let _ = self.release.lock().unwrap().recv();
        Ok(Vec::new())
    }

    fn partial(&mut self) -> Result<PartialResult, EngineError> {
        Ok(PartialResult::Nothing)
    }

    fn flush(&mut self) -> Result<Vec<Segment>, EngineError> {
        Ok(Vec::new())
    }
}

/// Returns a session whose recogniser is busy with its first frame until the sender is dropped.
fn busy() -> (Session, u64, mpsc::Sender<()>) {
    let (begun, beginning) = mpsc::channel();
    let (hold, release) = mpsc::channel();
    let recognizer: Arc<dyn Recognizer> = Arc::new(Stuck { begun, release: Arc::new(Mutex::new(release)) });
    let start = Start::new(16_000);
    let scheduler = scheduler();
    let session =
        Session::start(&recognizer, &scheduler, &Identity::of_nobody(), &start, RecognitionRequest::new())
            .unwrap();
    let attachment = session.attach(0).unwrap().attachment;
    push(&session, attachment, &audio(0, 1)).unwrap();
    beginning.recv().unwrap();
    (session, attachment, hold)
}

/// Returns a scheduler with one thread.
fn scheduler() -> Scheduler {
    Scheduler::new(NonZero::<usize>::MIN, Arc::new(Metrics::new(1, 1, &TokenCounters::default())))
}

/// A recogniser that reports the first sample of each push.
struct Tell(mpsc::Sender<i16>);

impl Recognizer for Tell {
    fn name(&self) -> &str {
        "tell"
    }

    fn start(&self, _: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
        Ok(Box::new(Tell(self.0.clone())))
    }
}

impl RecognizerStream for Tell {
    fn push(&mut self, pcm: &[i16]) -> Result<Vec<Segment>, EngineError> {
        let _ = self.0.send(pcm[0]);
        Ok(Vec::new())
    }

    fn partial(&mut self) -> Result<PartialResult, EngineError> {
        Ok(PartialResult::Nothing)
    }

    fn flush(&mut self) -> Result<Vec<Segment>, EngineError> {
        Ok(Vec::new())
    }
}

#[test]
fn relaxed_sessions_are_recognised_after_live_ones() {
    let scheduler = scheduler();
    let (begun, beginning) = mpsc::channel();
    let (hold, release) = mpsc::channel();
    let stuck: Arc<dyn Recognizer> = Arc::new(Stuck { begun, release: Arc::new(Mutex::new(release)) });
    let (sender, samples) = mpsc::channel();
    let tell: Arc<dyn Recognizer> = Arc::new(Tell(sender));
    let start = |recognizer, latency| {
        let start = Start { partials: false, latency, ..Start::new(16_000) };
        let session =
            Session::start(recognizer, &scheduler, &Identity::of_nobody(), &start, RecognitionRequest::new())
                .unwrap();
        let attachment = session.attach(0).unwrap().attachment;
        (session, attachment)
    };
    let (first, socket) = start(&stuck, Latency::Live);
    push(&first, socket, &audio(0, 1)).unwrap();
    beginning.recv().unwrap();
    // Both wait for the only thread, and the relaxed session came first.
    let (relaxed, relaxed_socket) = start(&tell, Latency::Relaxed);
    let (live, live_socket) = start(&tell, Latency::Live);
    let sample = |value: i16| {
        AudioChunk::new(FramePos::ZERO.to(FramePos(1)), Bytes::from(value.to_le_bytes().to_vec()))
    };
    push(&relaxed, relaxed_socket, &sample(1)).unwrap();
    push(&live, live_socket, &sample(2)).unwrap();
    drop(hold);
    assert_eq!((samples.recv().unwrap(), samples.recv().unwrap()), (2, 1));
}

fn audio(start: u64, frames: u64) -> AudioChunk {
    let range = FramePos(start).to(FramePos(start + frames));
    AudioChunk::new(range, Bytes::from(vec![0; 2 * usize::try_from(frames).unwrap()]))
}

/// Sends audio to a session, without limit on the amount.
fn push(session: &Session, attachment: u64, chunk: &AudioChunk) -> Result<(), Rejection> {
    session.audio(attachment, chunk, |_| Ok(()))
}

fn acknowledged(session: &Session) -> u64 {
    session.acknowledged(&session.state.lock()).0
}

#[test]
fn frames_one_by_one_cost_their_bytes() {
    let (session, socket, _hold) = busy();
    for frame in 1..=10_000 {
        push(&session, socket, &audio(frame, 1)).unwrap();
    }
    let state = session.state.lock();
    assert_eq!((state.input.received, state.input.queue.len()), (FramePos(10_001), 1));
    assert!(state.input.queue.bytes() <= 2 * 20_000, "{} bytes", state.input.queue.bytes());
}

#[test]
fn a_session_that_is_stuck_takes_a_bounded_amount() {
    let (session, socket, _hold) = busy();
    let (chunk, mut sent) = (RATE / 100, 1);
    let refusal = loop {
        match push(&session, socket, &audio(sent, chunk)) {
            Ok(()) => sent += chunk,
            Err(refusal) => break refusal,
        }
        session.flush(socket, None).unwrap();
    };
    assert!(refusal.to_string().contains("over the window"), "{refusal}");
    let most = (WINDOW_SECONDS + HOLD_SECONDS) * RATE;
    assert!((most - chunk..=most).contains(&sent), "{sent}");
    assert_eq!(acknowledged(&session), HOLD_SECONDS * RATE);
    let state = session.state.lock();
    let bytes = state.input.queue.bytes() as u64;
    assert!(bytes <= 2 * most * 2, "{bytes} bytes");
    // Every second flush takes effect, and splits the audio.
    assert!(state.input.queue.len() as u64 <= most / chunk + 1, "{} pieces", state.input.queue.len());
}

#[test]
fn a_session_takes_a_batch_more_unless_its_audio_is_resampled() {
    for (rate, batch) in [(16_000, 100_000), (48_000, 0)] {
        let recognizer: Arc<dyn Recognizer> = Arc::new(BatchLog::new(100_000));
        let (scheduler, options) = (scheduler(), RecognitionRequest::new());
        let start = Start { latency: Latency::Relaxed, ..Start::new(rate) };
        let session =
            Session::start(&recognizer, &scheduler, &Identity::of_nobody(), &start, options).unwrap();
        let socket = session.attach(0).unwrap().attachment;
        let (rate, mut sent) = (u64::from(rate), 0);
        while push(&session, socket, &audio(sent, rate)).is_ok() {
            sent += rate;
        }
        assert_eq!(acknowledged(&session), HOLD_SECONDS * rate + batch);
    }
}

#[test]
fn gaps_behind_a_stuck_recogniser_are_bounded() {
    let (session, socket, _hold) = busy();
    let mut at = 1;
    for _ in 1..MAX_GAPS {
        session.gap(socket, FramePos(at), FramePos(at + 9)).unwrap();
        at += 9;
        assert_eq!(acknowledged(&session), at);
        push(&session, socket, &audio(at, 1)).unwrap();
        at += 1;
    }
    // The last gap that fits is not acknowledged, so that a client stops here.
    session.gap(socket, FramePos(at), FramePos(at + 9)).unwrap();
    assert_eq!(acknowledged(&session), at);
    // An extension of the same gap costs nothing.
    session.gap(socket, FramePos(at + 9), FramePos(at + 20)).unwrap();
    push(&session, socket, &audio(at + 20, 1)).unwrap();
    let refusal = session.gap(socket, FramePos(at + 21), FramePos(at + 22)).unwrap_err();
    assert!(matches!(refusal, Rejection::Violation(_)), "{refusal}");
    assert_eq!(session.state.lock().input.gaps.len(), MAX_GAPS);
}

#[test]
fn gaps_do_not_count_as_waiting_audio() {
    let (session, socket, _hold) = busy();
    // One hour, which the recogniser has not reached yet.
    let hour = 3_600 * RATE;
    session.gap(socket, FramePos(1), FramePos(hour)).unwrap();
    assert_eq!(acknowledged(&session), hour);
    let chunk = audio(hour, 30 * RATE);
    push(&session, socket, &chunk).unwrap();
    assert_eq!(acknowledged(&session), chunk.range().end.0);
    push(&session, socket, &audio(chunk.range().end.0, 30 * RATE)).unwrap();
    // The frame that the recogniser is busy with also counts.
    assert_eq!(acknowledged(&session), hour + 60 * RATE - 1);
}

/// Returns a session that is recognised at once, by one thread.
fn recognised_at_once() -> (Session, u64) {
    let recognizer: Arc<dyn Recognizer> = Arc::new(DigestRecognizer::new(16_000));
    let start = Start { partials: false, ..Start::new(16_000) };
    let scheduler =
        Scheduler::new(NonZero::<usize>::MIN, Arc::new(Metrics::new(1, 1, &TokenCounters::default())));
    let session =
        Session::start(&recognizer, &scheduler, &Identity::of_nobody(), &start, RecognitionRequest::new())
            .unwrap();
    // Threads end with their scheduler, which must live as long as the test.
    std::mem::forget(scheduler);
    let attachment = session.attach(0).unwrap().attachment;
    (session, attachment)
}

/// Waits until all received audio is final.
async fn all_final(session: &Session) {
    let mut news = session.state().watch();
    let waiting = async {
        while {
            let state = session.state().lock();
            state.results.final_ < state.input.received
        } {
            news.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .expect("all that was received becomes final");
}

#[tokio::test]
async fn a_client_that_sends_no_audio_makes_no_finals() {
    let (session, socket) = recognised_at_once();
    // Each frame is followed by a flush that takes no effect, and by a gap.
    let (mut at, mut cuts) = (0, 0);
    let refusal = loop {
        push(&session, socket, &audio(at, 1)).unwrap();
        session.flush(socket, None).unwrap();
        match session.gap(socket, FramePos(at + 1), FramePos(at + 2)) {
            Ok(()) => (at, cuts) = (at + 2, cuts + 1),
            Err(refusal) => break refusal,
        }
        assert!(cuts <= 1_003, "a client that sends no audio may end utterances for ever");
        all_final(&session).await;
    };
    assert!(matches!(refusal, Rejection::Violation(_)), "{refusal}");
    // By then a sixteenth of a second of audio was received.
    assert_eq!(cuts, 1_003, "{refusal}");
    // A flush that is ignored takes nothing from the limit.
    push(&session, socket, &audio(at + 1, 319)).unwrap();
    session.flush(socket, None).unwrap();
    // A second of audio allows fifty more.
    push(&session, socket, &audio(at + 320, RATE)).unwrap();
    at += 320 + RATE;
    for cut in 0..50 {
        session
            .gap(socket, FramePos(at), FramePos(at + 1))
            .unwrap_or_else(|refusal| panic!("{cut}: {refusal}"));
        all_final(&session).await;
        push(&session, socket, &audio(at + 1, 1)).unwrap();
        at += 2;
    }
    // A gap that ends no utterance is free.
    session.finish(socket, FramePos(at)).unwrap();
    all_final(&session).await;
    let finals = session.state().lock().results.finals.len() as u64;
    assert!(finals <= 1_003 + 50 + 1 + 3, "{finals} finals");
}

#[test]
fn attempts_to_resume_count_as_messages_and_leave_a_reserve() {
    let (session, socket, _hold) = busy();
    let refused = (0..2 * CONTROL_BURST).any(|_| session.count_resume() == Err(Rejection::Flood));
    assert!(refused, "a client may try to resume without end");
    // The socket that has the session can still send messages.
    for message in 1..CONTROL_RATE {
        assert_eq!(session.control(socket), Ok(()), "message {message}");
    }
}

#[test]
fn gaps_that_lead_nowhere_are_refused_or_ignored() {
    let (session, socket, _hold) = busy();
    let gap = |from, to| session.gap(socket, FramePos(from), FramePos(to));
    for (from, to) in [(2, 3), (u64::MAX, u64::MAX), (2, 0), (1, 0), (1, u64::MAX), (0, FARTHEST.0 + 1)] {
        assert!(matches!(gap(from, to), Err(Rejection::Violation(_))), "{from}..{to}");
    }
    for (from, to) in [(0, 0), (0, 1), (1, 1)] {
        assert_eq!(gap(from, to), Ok(()), "{from}..{to}");
    }
    assert_eq!(session.state.lock().input.received, FramePos(1));
    // The part that was received before is skipped.
    assert_eq!(gap(0, FARTHEST.0), Ok(()));
    assert_eq!(session.state.lock().input.gaps, [FramePos(1).to(FARTHEST)]);
    session.finish(socket, FARTHEST).unwrap();
    assert_eq!(gap(0, FARTHEST.0), Ok(()), "said again");
    assert!(matches!(gap(FARTHEST.0, FARTHEST.0 + 1), Err(Rejection::Violation(_))));
}

#[test]
fn messages_of_a_socket_that_lost_the_session_are_refused() {
    let (session, old, _hold) = busy();
    let Attached { attachment: new, received, finals_seen, .. } = session.attach(0).unwrap();
    assert_eq!((received, finals_seen), (FramePos(1), 0));
    assert_eq!(push(&session, old, &audio(1, 5)), Err(Rejection::Moved));
    assert_eq!(session.gap(old, FramePos(1), FramePos(9)), Err(Rejection::Moved));
    assert_eq!(session.flush(old, None), Err(Rejection::Moved));
    assert_eq!(session.finish(old, FramePos(1)), Err(Rejection::Moved));
    assert!(!session.end(old));
    assert_eq!(session.state.lock().input.received, FramePos(1));
    push(&session, new, &audio(1, 5)).unwrap();

    // A resume with an impossible `finals_seen` leaves the session with its socket.
    assert!(matches!(session.attach(1), Err(AttachError::Violation(_))));
    assert!(session.is_held_by(new) && !session.is_held_by(old));
    assert!(session.end(new));
    assert_eq!(session.attach(0).unwrap_err(), AttachError::Over);
}

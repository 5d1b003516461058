//! What a peer might say to bring a session's core down, or into a circle.

use std::time::Duration;

use bytes::Bytes;
use voxline::audio::{AudioChunk, FramePos};
use voxline::recovery::Recovery;
use voxline::session::core::{Core, Input, Output};
use voxline::session::protocol::{Final, Ready, Secret, ServerMessage};
use voxline::session::{Failure, FailureKind, Ledger, SessionError, Settings, close};

const NOW: Duration = Duration::ZERO;

fn ready(received: u64) -> Input {
    Input::Peer(ServerMessage::Ready(Ready {
        session: "name".to_owned(),
        resume_key: Secret::from("key".to_owned()),
        resume_window_ms: u64::MAX,
        received: FramePos(received),
        final_: FramePos(u64::MAX),
        finals: u64::MAX,
        token_expires_in_ms: Some(u64::MAX),
        max_audio_bytes: usize::MAX,
        window_frames: u64::MAX,
        auth: true,
    }))
}

fn final_(index: u64, start: u64, end: u64) -> Input {
    Input::Peer(ServerMessage::Final(Final {
        index,
        start: FramePos(start),
        end: FramePos(end),
        text: String::new(),
        language: None,
        confidence: None,
    }))
}

/// A session that has sent 100 frames, of which 50 are the first final.
fn live() -> Core {
    let mut core = Core::new(Settings::new(16_000));
    let chunk = AudioChunk::new(FramePos(0).to(FramePos(100)), Bytes::from(vec![0; 200]));
    for input in [Input::Tick, Input::Audio(chunk), Input::Connected, ready(0), final_(0, 0, 50)] {
        core.handle(input, NOW);
    }
    assert!(end(&mut core).is_none());
    core
}

/// How the session ended, if it has.
fn end(core: &mut Core) -> Option<Result<Ledger, SessionError>> {
    std::iter::from_fn(|| core.poll_output()).find_map(|output| match output {
        Output::End(result) => Some(result),
        _ => None,
    })
}

#[test]
fn absurd_numbers_end_the_session_and_not_the_program() {
    let most = FramePos(u64::MAX);
    let ack = Input::Peer(ServerMessage::Ack { received: most, final_: most });
    let done = Input::Peer(ServerMessage::Done { frames: most, finals: u64::MAX });
    for input in [ack, done, final_(u64::MAX, 50, 60), final_(1, 50, u64::MAX), final_(1, 50, 40), ready(0)] {
        let mut core = live();
        let said = format!("{input:?}");
        core.handle(input, NOW);
        let ended = end(&mut core);
        assert!(matches!(ended, Some(Err(SessionError::Protocol { .. }))), "{said}: {ended:?}");
    }
    // A guess at a segment that can't be is no reason to end.
    let mut core = live();
    let guess = ServerMessage::Partial {
        segment: u64::MAX,
        revision: u64::MAX,
        start: most,
        end: FramePos(0),
        text: String::new(),
    };
    core.handle(Input::Peer(guess), NOW);
    assert!(core.poll_output().is_none());
}

#[test]
fn a_second_server_session_counts_its_finals_from_nought() {
    let mut core = live();
    core.handle(Input::Closed(close::SESSION_UNKNOWN, String::new()), NOW);
    let later = Duration::from_secs(1);
    for input in [Input::Tick, Input::Connected, ready(50), final_(u64::MAX, 50, 60)] {
        core.handle(input, later);
    }
    assert!(matches!(end(&mut core), Some(Err(SessionError::Protocol { .. }))));
}

#[test]
fn a_new_session_cannot_hold_what_it_was_never_sent() {
    let mut core = Core::new(Settings::new(16_000));
    let chunk = AudioChunk::new(FramePos(0).to(FramePos(100)), Bytes::from(vec![0; 200]));
    for input in [Input::Tick, Input::Audio(chunk), Input::Connected, ready(100)] {
        core.handle(input, NOW);
    }
    assert!(matches!(end(&mut core), Some(Err(SessionError::Protocol { .. }))));
}

#[test]
fn what_comes_late_from_a_socket_that_is_gone_is_ignored() {
    let mut core = live();
    core.handle(Input::Lost("reset".to_owned()), NOW);
    let failure =
        Failure { recovery: Recovery::Fatal, kind: FailureKind::Protocol, reason: "late".to_owned() };
    let late = [
        Input::Connected,
        Input::DialFailed(failure),
        final_(7, 7, 7),
        Input::Garbage("late".to_owned()),
        Input::Closed(close::PROTOCOL, String::new()),
        Input::Lost("late".to_owned()),
    ];
    for input in late {
        core.handle(input, NOW);
        assert!(core.poll_output().is_none());
    }
    assert!(core.wake_at().is_some(), "it dials again");
}

#[test]
fn a_wait_longer_than_its_patience_ends_the_session() {
    let mut core = Core::new(Settings::new(16_000));
    core.handle(Input::Tick, NOW);
    let failure = Failure {
        recovery: Recovery::RetryAfter(Duration::from_secs(u32::MAX.into())),
        kind: FailureKind::Limit,
        reason: "come back in a century".to_owned(),
    };
    core.handle(Input::DialFailed(failure), NOW);
    assert!(matches!(end(&mut core), Some(Err(SessionError::Limit { .. }))));
}

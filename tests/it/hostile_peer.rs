//! Messages with which a peer might crash the session's state machine, or make it loop.

use std::time::Duration;

use bytes::Bytes;
use voxline::audio::{AudioChunk, FramePos, FrameRange};
use voxline::auth::{AccessToken, TokenGeneration};
use voxline::peer::ConnectionLost;
use voxline::protocol::close;
use voxline::protocol::{Final, Ready, Secret, ServerMessage, Task};
use voxline::recovery::{Failure, FailureKind, Recovery};
use voxline::session::machine::{ConnectionId, Input, Machine, Output};
use voxline::session::{SessionError, Settings, Violation};

const NOW: Duration = Duration::ZERO;
const FIRST: ConnectionId = ConnectionId(0);
const SECOND: ConnectionId = ConnectionId(1);

fn token() -> Input {
    Input::Token(AccessToken::new(&"token".to_owned().into(), TokenGeneration(1)).unwrap())
}

fn ready(id: ConnectionId, received: u64) -> Input {
    let mut ready = Ready::new(FramePos(0), usize::MAX, u64::MAX)
        .resumable("name", Secret::from("key".to_owned()), Duration::MAX)
        .resumed_at(FramePos(received), FramePos(u64::MAX), u64::MAX);
    ready.token_expires_in_ms = Some(u64::MAX);
    ready.auth = true;
    assert_eq!((ready.resume_window_ms, ready.max_audio_bytes), (u64::MAX, usize::MAX));
    Input::Peer(id, ServerMessage::Ready(ready))
}

fn final_(id: ConnectionId, index: u64, start: u64, end: u64) -> Input {
    let range = FrameRange { start: FramePos(start), end: FramePos(end) };
    Input::Peer(id, ServerMessage::Final(Final::new(index, range, "")))
}

/// Returns a session that has sent 100 frames, of which the first 50 are a final.
fn live() -> Machine {
    let mut machine = Machine::new(Settings::new(16_000).with_seed(0));
    let chunk = AudioChunk::new(FramePos(0).to(FramePos(100)), Bytes::from(vec![0; 200]));
    for input in [
        Input::Tick,
        Input::Audio(chunk),
        token(),
        Input::Connected(FIRST),
        ready(FIRST, 0),
        final_(FIRST, 0, 0, 50),
    ] {
        machine.handle(input, NOW);
    }
    assert!(end(&mut machine).is_none());
    machine
}

/// Returns the result of the session if it has ended.
fn end(machine: &mut Machine) -> Option<Result<(), SessionError>> {
    std::iter::from_fn(|| machine.poll_output()).find_map(|output| match output {
        Output::End(ended) => Some(ended.result),
        _ => None,
    })
}

/// If the server may need more audio for a final than the client can buffer, each would wait for the
/// other.
#[test]
fn a_buffer_that_the_server_may_fill_is_refused() {
    let mut settings = Settings::new(16_000).with_seed(0);
    settings.replay.frames = 1_000;
    for (needed, refused) in [(1_000, false), (1_001, true)] {
        let mut machine = Machine::new(settings.clone());
        let Input::Peer(_, ServerMessage::Ready(mut ready)) = ready(FIRST, 0) else {
            unreachable!("made so")
        };
        ready.max_unfinal_frames = Some(needed);
        for input in
            [Input::Tick, token(), Input::Connected(FIRST), Input::Peer(FIRST, ServerMessage::Ready(ready))]
        {
            machine.handle(input, NOW);
        }
        let Some(Err(error)) = end(&mut machine) else {
            assert!(!refused, "{needed}");
            continue;
        };
        assert_eq!(error, SessionError::Buffer { buffer: 1_000, needed: 1_001 });
        let told = error.to_string();
        assert!(refused && told.contains("1000 frames") && told.contains("1001 frames"), "{told}");
    }
}

/// A service that knows no tasks would transcribe what is to be translated.
#[test]
fn a_service_with_another_task_is_refused() {
    let mut settings = Settings::new(16_000).with_seed(0);
    settings.request.task = Task::Translate;
    for (performed, refused) in [(Task::Translate, false), (Task::Transcribe, true)] {
        let mut machine = Machine::new(settings.clone());
        let Input::Peer(_, ServerMessage::Ready(mut ready)) = ready(FIRST, 0) else {
            unreachable!("made so")
        };
        ready.task = performed;
        for input in
            [Input::Tick, token(), Input::Connected(FIRST), Input::Peer(FIRST, ServerMessage::Ready(ready))]
        {
            machine.handle(input, NOW);
        }
        match end(&mut machine) {
            Some(Err(SessionError::Unsupported { reason, .. })) => {
                assert!(refused && reason.contains("'translate'"), "{reason}");
            }
            ended => assert!(ended.is_none() && !refused, "{performed}: {ended:?}"),
        }
    }
}

/// A peer of a later version may send more than this client knows, before `ready` and after it.
#[test]
fn unknown_messages_and_fields_are_passed_over() {
    const UNKNOWN: &str = r#"{"type":"weather","temperature":21}"#;
    const ACK: &str = r#"{"type":"ack","received":0,"final":0,"mood":"calm"}"#;
    const FINAL: &str = r#"{"type":"final","index":0,"start":0,"end":50,"text":"","mood":"calm"}"#;
    let says = |text| Input::Peer(FIRST, serde_json::from_str(text).unwrap());
    let mut machine = Machine::new(Settings::new(16_000).with_seed(0));
    let chunk = AudioChunk::new(FramePos(0).to(FramePos(100)), Bytes::from(vec![0; 200]));
    for input in [
        Input::Tick,
        Input::Audio(chunk),
        token(),
        Input::Connected(FIRST),
        says(UNKNOWN),
        ready(FIRST, 0),
        says(UNKNOWN),
        says(ACK),
        says(FINAL),
    ] {
        let said = format!("{input:?}");
        machine.handle(input, NOW);
        let outputs: Vec<Output> = std::iter::from_fn(|| machine.poll_output()).collect();
        let ended = outputs.iter().find(|output| matches!(output, Output::End(_)));
        assert!(ended.is_none(), "{said}: {ended:?}");
        let is_final = said.contains("Final(");
        let is_told = outputs.iter().any(|output| matches!(output, Output::Emit(_)));
        assert_eq!(is_told, is_final, "{said}: {outputs:?}");
    }
}

#[test]
fn absurd_numbers_end_the_session_and_not_the_program() {
    let most = FramePos(u64::MAX);
    let ack = Input::Peer(FIRST, ServerMessage::Ack { received: most, final_: most });
    let done = Input::Peer(FIRST, ServerMessage::Done { frames: most, finals: u64::MAX });
    for input in [
        ack,
        done,
        final_(FIRST, u64::MAX, 50, 60),
        final_(FIRST, 1, 50, u64::MAX),
        final_(FIRST, 1, 50, 40),
        ready(FIRST, 0),
    ] {
        let mut machine = live();
        let said = format!("{input:?}");
        machine.handle(input, NOW);
        let ended = end(&mut machine);
        assert!(matches!(ended, Some(Err(SessionError::Violation(_)))), "{said}: {ended:?}");
    }
    // A context that exceeds the limit.
    let mut machine = live();
    let Input::Peer(_, ServerMessage::Final(mut segment)) = final_(FIRST, 1, 50, 60) else {
        unreachable!("made so")
    };
    segment.context = Some("x".repeat(4097));
    machine.handle(Input::Peer(FIRST, ServerMessage::Final(segment)), NOW);
    let ended = end(&mut machine);
    let Some(Err(SessionError::Violation(violation))) = ended else { panic!("{ended:?}") };
    assert_eq!(violation, Violation::ContextSize { index: 1, bytes: 4_097 });
    assert_eq!(violation.to_string(), "final 1 has a context of 4097 bytes, the limit is 4096");
    // A partial result of an impossible segment is no reason to end the session.
    let mut machine = live();
    let guess = ServerMessage::Partial {
        segment: u64::MAX,
        revision: u64::MAX,
        start: most,
        end: FramePos(0),
        text: String::new(),
    };
    machine.handle(Input::Peer(FIRST, guess), NOW);
    assert!(machine.poll_output().is_none());
}

#[test]
fn a_second_server_session_counts_its_finals_from_nought() {
    let mut machine = live();
    machine.handle(Input::Closed(FIRST, close::SESSION_UNKNOWN, String::new()), NOW);
    let later = Duration::from_secs(1);
    for input in
        [Input::Tick, token(), Input::Connected(SECOND), ready(SECOND, 50), final_(SECOND, u64::MAX, 50, 60)]
    {
        machine.handle(input, later);
    }
    assert!(matches!(end(&mut machine), Some(Err(SessionError::Violation(_)))));
}

#[test]
fn a_new_session_cannot_hold_what_it_was_never_sent() {
    let mut machine = Machine::new(Settings::new(16_000).with_seed(0));
    let chunk = AudioChunk::new(FramePos(0).to(FramePos(100)), Bytes::from(vec![0; 200]));
    for input in [Input::Tick, Input::Audio(chunk), token(), Input::Connected(FIRST), ready(FIRST, 100)] {
        machine.handle(input, NOW);
    }
    assert!(matches!(end(&mut machine), Some(Err(SessionError::Violation(_)))));
}

#[test]
fn what_comes_late_from_a_socket_that_is_gone_is_ignored() {
    let mut machine = live();
    machine.handle(Input::Lost(FIRST, ConnectionLost::Ended), NOW);
    let failure = Failure::new(Recovery::Fatal, FailureKind::Protocol, "late");
    let late = [
        Input::Connected(FIRST),
        Input::DialFailed(FIRST, failure),
        final_(FIRST, 7, 7, 7),
        Input::Violation(FIRST, Violation::BinaryFrame),
        Input::Closed(FIRST, close::PROTOCOL, String::new()),
        Input::Lost(FIRST, ConnectionLost::NoCode),
        Input::Alive(FIRST),
        token(),
    ];
    for input in late {
        machine.handle(input, NOW);
        assert!(machine.poll_output().is_none());
    }
    assert!(machine.wake_at().is_some(), "it dials again");
}

#[test]
fn a_wait_longer_than_its_patience_ends_the_session() {
    let mut machine = Machine::new(Settings::new(16_000).with_seed(0));
    machine.handle(Input::Tick, NOW);
    machine.handle(token(), NOW);
    let century = Recovery::RetryAfter(Duration::from_secs(u32::MAX.into()));
    let failure = Failure::new(century, FailureKind::Limit, "come back in a century");
    machine.handle(Input::DialFailed(FIRST, failure), NOW);
    assert!(matches!(end(&mut machine), Some(Err(SessionError::Limit { .. }))));
}

//! Single steps of the session's state machine: when a handover starts, how simultaneous actions of many
//! sessions are spread, and which messages of the peer are not believed.

use std::time::Duration;

use bytes::Bytes;
use voxline::audio::{AudioChunk, FramePos};
use voxline::auth::{AccessToken, TokenGeneration};
use voxline::peer::{Acknowledgements, Capabilities, ConnectionLost};
use voxline::protocol::close;
use voxline::protocol::{ClientMessage, GoawayReason, Ready, Secret, ServerMessage};
use voxline::recovery::{Failure, FailureKind, Recovery};
use voxline::session::machine::{ConnectionId, Input, Machine, Output};
use voxline::session::{CatchUp, Checkpoint, SessionError, Settings};

const FIRST: ConnectionId = ConnectionId(0);
const SECOND: ConnectionId = ConnectionId(1);
/// Time long after the start of the session, so that the first change of token or connection then does
/// not count as hasty.
const LATER: Duration = Duration::from_secs(100);

fn token(generation: u64) -> Input {
    Input::Token(AccessToken::new(&"token".to_owned().into(), TokenGeneration(generation)).unwrap())
}

fn ready(id: ConnectionId, received: u64, token_life: Option<Duration>) -> Input {
    let mut ready = Ready::new(FramePos(0), 32_000, 64_000)
        .resumable("name", Secret::from("key".to_owned()), Duration::from_secs(60))
        .resumed_at(FramePos(received), FramePos(0), 0);
    ready.token_expires_in_ms = token_life.map(|life| life.as_millis() as u64);
    Input::Peer(id, ServerMessage::Ready(ready))
}

fn goaway(reason: GoawayReason, deadline: Duration) -> Input {
    let deadline_ms = deadline.as_millis() as u64;
    Input::Peer(FIRST, ServerMessage::Goaway { reason, deadline_ms, restart: false, endpoints: Vec::new() })
}

fn outputs(machine: &mut Machine) -> Vec<Output> {
    std::iter::from_fn(|| machine.poll_output()).collect()
}

/// Returns a session that has just begun. Its ping interval and its patience are a day.
fn session(seed: u64, token_life: Option<Duration>) -> Machine {
    let mut settings = Settings::new(16_000).with_seed(seed);
    settings.timeouts.ping_interval = Duration::from_secs(86_400);
    settings.timeouts.first_contact = Duration::from_secs(86_400);
    settings.timeouts.give_up = Duration::from_secs(86_400);
    let mut machine = Machine::new(settings);
    for input in [Input::Tick, token(1), Input::Connected(FIRST), ready(FIRST, 0, token_life)] {
        machine.handle(input, Duration::ZERO);
    }
    outputs(&mut machine);
    machine
}

/// Wakes the machine at the times it requests until it asks for a token. Returns the time of that, or `None`
/// if it would be later than `limit`.
fn asks_for_token(machine: &mut Machine, limit: Duration) -> Option<Duration> {
    loop {
        let at = machine.wake_at().filter(|at| *at <= limit)?;
        machine.handle(Input::Tick, at);
        if outputs(machine).iter().any(|output| matches!(output, Output::NeedToken { .. })) {
            return Some(at);
        }
    }
}

/// Returns whether the times stay within `low..=high` and use nearly all of that range.
fn is_spread(times: &[Duration], low: Duration, high: Duration) -> bool {
    let (first, last) = (*times.iter().min().unwrap(), *times.iter().max().unwrap());
    let edge = (high - low) / 10;
    low <= first && first <= low + edge && high - edge <= last && last <= high
}

/// Returns how long before its expiry a token of lifetime `life` is replaced, in sessions of these seeds.
fn leads(life: Duration, seeds: impl Iterator<Item = u64>) -> Vec<Duration> {
    let lead = |seed| {
        let mut machine = session(seed, Some(life));
        life - asks_for_token(&mut machine, life).expect("a token is asked for before its end")
    };
    seeds.map(lead).collect()
}

/// A token is replaced in the first half of the last fifth of its lifetime, or of the last five minutes
/// if those are shorter.
#[test]
fn tokens_are_replaced_early_enough_and_not_by_everybody_at_once() {
    for (life, low, high) in [(3_600, 150, 300), (100, 10, 20), (1_500, 150, 300)] {
        let [life, low, high] = [life, low, high].map(Duration::from_secs);
        let leads = leads(life, 0..200);
        assert!(is_spread(&leads, low, high), "a life of {life:?}: {leads:?}");
        // Sessions that share their seed have no jitter: all replace the token at the same moment.
        let together = self::leads(life, std::iter::repeat_n(7, 200));
        assert!(!is_spread(&together, low, high), "missing jitter was not caught");
    }
}

#[test]
fn a_warning_that_all_sessions_hear_moves_them_one_after_the_other() {
    for (deadline, latest) in [(10_000, 1_000), (1_000, 500), (60_000, 1_000)] {
        let [deadline, latest] = [deadline, latest].map(Duration::from_millis);
        for reason in [GoawayReason::Drain, GoawayReason::Limit, GoawayReason::Token] {
            let moved = |seed| {
                let mut machine = session(seed, None);
                machine.handle(goaway(reason, deadline), LATER);
                asks_for_token(&mut machine, LATER + deadline).expect("it moves before the deadline") - LATER
            };
            let moves: Vec<Duration> = (0..200).map(moved).collect();
            assert!(is_spread(&moves, Duration::ZERO, latest), "{reason:?}, {deadline:?}: {moves:?}");
        }
    }
}

fn busy(retry_after: Duration) -> Failure {
    Failure::new(Recovery::RetryAfter(retry_after), FailureKind::Limit, "busy")
}

/// Returns the waits of a session whose dials are all refused with this `retry_after`. With `moving`, the
/// session keeps its connection and dials for a handover.
fn waits(seed: u64, retry_after: Duration, moving: bool) -> Vec<Duration> {
    let mut machine = session(seed, None);
    let mut now = LATER;
    machine.handle(goaway(GoawayReason::Limit, Duration::ZERO), now);
    if !moving {
        machine.handle(Input::Lost(FIRST, ConnectionLost::Ended), now);
    }
    let mut waits = Vec::new();
    for dial in 0..12 {
        let asked = asks_for_token(&mut machine, now + Duration::from_secs(3_600)).expect("it tries again");
        if dial > 0 {
            waits.push(asked - now);
        }
        now = asked;
        machine.handle(token(1), now);
        let dialled = outputs(&mut machine).into_iter().find_map(|output| match output {
            Output::Dial { id, .. } => Some(id),
            _ => None,
        });
        machine.handle(Input::DialFailed(dialled.expect("a token is for a dial"), busy(retry_after)), now);
    }
    waits
}

/// A service that requests no wait still gets a growing backoff. A service that requests a longer wait
/// gets it.
#[test]
fn a_service_that_says_when_to_come_back_is_not_called_more_often_than_any_other() {
    for moving in [false, true] {
        let all: Vec<Vec<Duration>> = (0..100).map(|seed| waits(seed, Duration::ZERO, moving)).collect();
        // The ceiling of the backoff has reached ten seconds by then, and the mean wait is half of it.
        let late: Duration = all.iter().flat_map(|waits| &waits[8..]).sum();
        let mean = late / (100 * 3);
        assert!((4..=6).contains(&mean.as_secs()), "a mean wait of {mean:?}, moving: {moving}");
        let asked = Duration::from_secs(7);
        for waits in (0..100).map(|seed| waits(seed, asked, moving)) {
            assert!(waits.iter().all(|wait| *wait >= asked), "{waits:?}, moving: {moving}");
        }
    }
}

/// Returns the capabilities of `voxline.asr.v1`, changed in one respect.
fn with(change: impl FnOnce(&mut Capabilities)) -> Capabilities {
    let mut capabilities = Capabilities::native();
    change(&mut capabilities);
    capabilities
}

/// Returns a session with a peer of these capabilities that has just begun, with a token of this life.
fn session_with(capabilities: Capabilities, seed: u64, token_life: Option<Duration>) -> Machine {
    let mut settings = Settings::new(16_000).with_seed(seed);
    settings.timeouts.ping_interval = Duration::from_secs(86_400);
    settings.timeouts.progress = Duration::from_secs(86_400);
    let mut machine = Machine::for_peer(settings, capabilities, Checkpoint::default());
    let Input::Peer(_, ServerMessage::Ready(mut ready)) = ready(FIRST, 0, token_life) else {
        unreachable!("made so")
    };
    ready.auth = true;
    let ready = Input::Peer(FIRST, ServerMessage::Ready(ready));
    for input in [Input::Tick, token(1), Input::Connected(FIRST), ready] {
        machine.handle(input, Duration::ZERO);
    }
    outputs(&mut machine);
    machine
}

fn final_(id: ConnectionId, start: u64, end: u64) -> Input {
    let text = format!(r#"{{"type":"final","index":0,"start":{start},"end":{end},"text":""}}"#);
    Input::Peer(id, serde_json::from_str(&text).unwrap())
}

#[test]
fn without_resume_a_lost_connection_is_followed_by_a_session_at_the_last_final() {
    for resume in [true, false] {
        let mut machine = session_with(with(|peer| peer.resume = resume), 1, None);
        speak(&mut machine, 100, LATER);
        machine.handle(final_(FIRST, 0, 60), LATER);
        let ack = ServerMessage::Ack { received: FramePos(100), final_: FramePos(60) };
        machine.handle(Input::Peer(FIRST, ack), LATER);
        machine.handle(Input::Lost(FIRST, ConnectionLost::Ended), LATER);
        outputs(&mut machine);
        let now = asks_for_token(&mut machine, LATER + Duration::from_secs(10)).unwrap();
        machine.handle(token(1), now);
        let dialled = outputs(&mut machine);
        let [Output::Dial { session, .. }] = &dialled[..] else { panic!("{dialled:?}") };
        assert_eq!(session.is_some(), resume);
        machine.handle(Input::Connected(SECOND), now);
        let opened = outputs(&mut machine);
        match &opened[..] {
            [Output::Send(SECOND, ClientMessage::Resume { .. })] => assert!(resume),
            [Output::Send(SECOND, ClientMessage::Start(start))] => {
                assert!(!resume);
                assert_eq!(start.origin, FramePos(60));
            }
            opened => panic!("{opened:?}"),
        }
        machine.handle(ready(SECOND, if resume { 100 } else { 60 }, None), now);
        let again = outputs(&mut machine).into_iter().find_map(|output| match output {
            Output::SendAudio(SECOND, chunk) => Some(chunk.range()),
            _ => None,
        });
        assert_eq!(again, (!resume).then(|| FramePos(60).to(FramePos(100))));
    }
}

#[test]
fn without_in_band_auth_a_token_moves_the_session_to_a_second_connection() {
    let life = Duration::from_secs(100);
    for (in_band_auth, resume) in [(true, true), (false, true), (false, false)] {
        let capabilities = with(|peer| (peer.in_band_auth, peer.resume) = (in_band_auth, resume));
        let mut machine = session_with(capabilities, 1, Some(life));
        let now = asks_for_token(&mut machine, life).unwrap();
        machine.handle(token(2), now);
        let said = outputs(&mut machine);
        match &said[..] {
            [Output::Send(FIRST, ClientMessage::Auth { .. })] => {
                assert!(in_band_auth);
                continue;
            }
            [Output::Dial { id: SECOND, session, .. }] => {
                assert!(!in_band_auth && session.is_some() == resume);
            }
            said => panic!("{said:?}"),
        }
        machine.handle(Input::Connected(SECOND), now);
        machine.handle(ready(SECOND, 0, Some(life)), now);
        let said = outputs(&mut machine);
        let left = if resume { close::MOVED } else { close::NORMAL };
        assert!(
            said.iter().any(|output| matches!(output, Output::Close(FIRST, code) if *code == left)),
            "{said:?}"
        );
        assert_eq!(machine.ledger().handovers, 1);
    }
}

#[test]
fn without_acknowledgements_only_finals_prove_that_audio_arrived() {
    for acknowledgements in [Acknowledgements::Explicit, Acknowledgements::Replies, Acknowledgements::None] {
        let mut machine = session_with(with(|peer| peer.acknowledgements = acknowledgements), 1, None);
        // More than the window.
        speak(&mut machine, 100_000, LATER);
        let acknowledges = acknowledgements != Acknowledgements::None;
        assert_eq!(machine.cursors().sent.0, if acknowledges { 64_000 } else { 100_000 });
        let ack = ServerMessage::Ack { received: FramePos(50_000), final_: FramePos(0) };
        machine.handle(Input::Peer(FIRST, ack), LATER);
        assert_eq!(machine.cursors().received.0, if acknowledges { 50_000 } else { 0 });
        machine.handle(final_(FIRST, 0, 60_000), LATER);
        assert_eq!(machine.cursors().received.0, 60_000);
    }
}

#[test]
fn a_connection_with_a_known_end_is_replaced_before_that_end() {
    let longest = Duration::from_secs(100);
    for resume in [true, false] {
        let capabilities = with(|peer| (peer.longest_session, peer.resume) = (Some(longest), resume));
        let lead = |seed| {
            let mut machine = session_with(capabilities.clone(), seed, None);
            longest - asks_for_token(&mut machine, longest).expect("it moves before the end")
        };
        let leads: Vec<Duration> = (0..200).map(lead).collect();
        assert!(is_spread(&leads, Duration::from_secs(10), Duration::from_secs(20)), "{leads:?}");
        // A token that ends earlier comes first.
        let mut machine = session_with(capabilities.clone(), 1, Some(longest / 2));
        assert!(asks_for_token(&mut machine, longest / 2).is_some());
        // A session that has sent its end would have to send all of it again, unless it can be resumed.
        let mut machine = session_with(capabilities.clone(), 1, None);
        speak(&mut machine, 100, LATER / 10);
        machine.handle(Input::Finish, LATER / 10);
        assert_eq!(asks_for_token(&mut machine, longest).is_some(), resume);
    }
}

#[test]
fn a_sample_rate_that_the_service_does_not_take_ends_the_session_at_once() {
    for (sample_rates, taken) in [(8_000..=48_000, true), (8_000..=8_000, false)] {
        let capabilities = with(|peer| peer.sample_rates = sample_rates);
        let mut machine =
            Machine::for_peer(Settings::new(16_000).with_seed(0), capabilities, Checkpoint::default());
        machine.handle(Input::Tick, Duration::ZERO);
        let ended = end(&mut machine);
        assert_eq!(ended.is_none(), taken, "{ended:?}");
        assert!(taken || matches!(ended, Some(Err(SessionError::Unsupported { .. }))));
    }
}

/// A peer that has no gaps ends its session before one. The audio behind it is for the next connection, and
/// never for one that was told that no audio follows.
#[test]
fn no_audio_follows_the_end_on_the_same_connection() {
    let longest = Duration::from_secs(100);
    let capabilities =
        with(|peer| (peer.longest_session, peer.resume, peer.gaps) = (Some(longest), false, false));
    let mut machine = session_with(capabilities, 1, None);
    let now = asks_for_token(&mut machine, longest).expect("it moves before the end");
    machine.handle(token(1), now);
    machine.handle(Input::Gap(FramePos(0).to(FramePos(100))), now);
    let told = |output: &Output| matches!(output, Output::Send(FIRST, ClientMessage::Finish { .. }));
    assert!(outputs(&mut machine).iter().any(told));
    machine.handle(Input::Connected(SECOND), now);
    let payload = Bytes::from(vec![0; 200]);
    machine.handle(Input::Audio(AudioChunk::new(FramePos(100).to(FramePos(200)), payload)), now);
    let outputs = outputs(&mut machine);
    assert!(!outputs.iter().any(|output| matches!(output, Output::SendAudio(FIRST, _))), "{outputs:?}");
}

/// A session is resumed by its name in an address, which has room for so many bytes.
#[test]
fn a_session_whose_name_fits_no_address_is_refused() {
    for (bytes, is_refused) in [(1_024, false), (1_025, true)] {
        let Input::Peer(_, ServerMessage::Ready(mut ready)) = ready(FIRST, 0, None) else {
            unreachable!("made so")
        };
        ready.session = "n".repeat(bytes);
        let ready = Input::Peer(FIRST, ServerMessage::Ready(ready));
        let mut machine = Machine::new(Settings::new(16_000).with_seed(0));
        for input in [Input::Tick, token(1), Input::Connected(FIRST), ready] {
            machine.handle(input, Duration::ZERO);
        }
        let refused = matches!(end(&mut machine), Some(Err(SessionError::Violation(_))));
        assert_eq!(refused, is_refused, "a name of {bytes} bytes");
    }
}

/// The pace of the service applies, unless the settings have one.
#[test]
fn a_service_is_sent_no_more_than_its_pace() {
    for (own, sent) in [(None, 16_000), (CatchUp::new(Duration::from_millis(1_500), 1.5), 24_000)] {
        let capabilities = with(|peer| peer.pacing = CatchUp::new(Duration::from_secs(1), 1.25));
        let mut settings = Settings::new(16_000).with_seed(0);
        settings.replay.catch_up = own;
        let mut machine = Machine::for_peer(settings, capabilities, Checkpoint::default());
        for input in [Input::Tick, token(1), Input::Connected(FIRST), ready(FIRST, 0, None)] {
            machine.handle(input, Duration::ZERO);
        }
        speak(&mut machine, 60_000, Duration::ZERO);
        assert_eq!(machine.cursors().sent.0, sent);
    }
}

/// Passes the first frames of audio to the session.
fn speak(machine: &mut Machine, frames: u64, now: Duration) {
    let payload = Bytes::from(vec![0; 2 * frames as usize]);
    machine.handle(Input::Audio(AudioChunk::new(FramePos(0).to(FramePos(frames)), payload)), now);
}

/// Only the service's work is left, and a second connection would disturb it. An expiring token is still
/// replaced.
#[test]
fn a_session_that_has_sent_its_end_moves_for_no_drain() {
    for (reason, moves) in
        [(GoawayReason::Drain, false), (GoawayReason::Limit, false), (GoawayReason::Token, true)]
    {
        let mut machine = session(1, None);
        speak(&mut machine, 100, LATER);
        machine.handle(Input::Finish, LATER);
        let sent = outputs(&mut machine);
        assert!(sent.iter().any(|output| matches!(output, Output::Send(_, ClientMessage::Finish { .. }))));
        machine.handle(goaway(reason, Duration::from_secs(10)), LATER);
        let asked = asks_for_token(&mut machine, LATER + Duration::from_secs(30));
        assert_eq!(asked.is_some(), moves, "{reason:?}");
    }
}

/// A successor connection in progress is given up if it presents the token that was refused on the first
/// connection. A successor with a newer token takes over.
#[test]
fn a_successor_does_not_show_a_refused_token_again() {
    for (generation, opened) in [(1, false), (1, true), (2, false), (2, true)] {
        let mut machine = session(1, None);
        machine.handle(goaway(GoawayReason::Drain, Duration::from_secs(10)), LATER);
        let now = asks_for_token(&mut machine, LATER + Duration::from_secs(10)).unwrap();
        machine.handle(token(generation), now);
        assert!(matches!(outputs(&mut machine)[..], [Output::Dial { id: SECOND, .. }]));
        if opened {
            machine.handle(Input::Connected(SECOND), now);
            outputs(&mut machine);
        }
        machine.handle(Input::Closed(FIRST, close::TOKEN, String::new()), now);
        let said = outputs(&mut machine);
        let given_up = said.iter().any(|output| matches!(output, Output::Close(SECOND, _)));
        assert_eq!(given_up, generation == 1, "token {generation}, opened: {opened}, {said:?}");
        if given_up {
            // A newer token is requested after the backoff for a peer that accepts tokens and rejects
            // them soon after.
            let newer = loop {
                machine.handle(Input::Tick, machine.wake_at().unwrap());
                let asked = outputs(&mut machine).into_iter().find_map(|output| match output {
                    Output::NeedToken { newer_than } => Some(newer_than),
                    _ => None,
                });
                if let Some(newer_than) = asked {
                    break newer_than;
                }
            };
            assert_eq!(newer, Some(TokenGeneration(1)));
        }
    }
}

fn end(machine: &mut Machine) -> Option<Result<(), SessionError>> {
    outputs(machine).into_iter().find_map(|output| match output {
        Output::End(ended) => Some(ended.result),
        _ => None,
    })
}

/// The server has lost the session and is asked for a new one. Nothing has been sent on the new session
/// yet.
#[test]
fn a_new_session_holds_nothing_of_the_one_before() {
    for (received, whole) in [(0, true), (80, false)] {
        let mut machine = session(1, None);
        speak(&mut machine, 100, LATER);
        machine.handle(Input::Closed(FIRST, close::SESSION_UNKNOWN, String::new()), LATER);
        let now = asks_for_token(&mut machine, LATER + Duration::from_secs(10)).unwrap();
        machine.handle(token(1), now);
        machine.handle(Input::Connected(SECOND), now);
        machine.handle(ready(SECOND, received, None), now);
        let ended = end(&mut machine);
        assert_eq!(ended.is_none(), whole, "received {received}: {ended:?}");
        assert!(whole || matches!(ended, Some(Err(SessionError::Violation(_)))));
    }
}

#[test]
fn an_end_that_counts_other_finals_than_came_is_not_believed() {
    for (finals, whole) in [(0, true), (1, false), (u64::MAX, false)] {
        let mut machine = session(1, None);
        machine.handle(Input::Finish, LATER);
        machine.handle(Input::Peer(FIRST, ServerMessage::Done { frames: FramePos(0), finals }), LATER);
        let ended = end(&mut machine).expect("it ends, well or not");
        assert_eq!(ended.is_ok(), whole, "{finals} finals: {ended:?}");
    }
}

//! Single exchanges of the protocol, and the promises that involve time.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use voxline::audio::{AudioChunk, Feed, FramePos};
use voxline::auth::TokenProvider;
use voxline::backoff::Backoff;
use voxline::protocol::close;
use voxline::protocol::{Ready, ServerMessage, encode_audio};
use voxline::session::{Ended, Session, SessionError, Settings};
use voxline::transcript::TranscriptEvent;
use voxline::transport::{Connect, Message};
use voxline_testing::network::{self, Line, SimulatedConnector, Trace};
use voxline_testing::peer::{Behaviour, Expect, RecordingPeer, Reply, ScriptError, ScriptedPeer, Step};
use voxline_testing::{Cut, Fault, ShortLivedTokens};

use super::world::{RATE, bytes, chunk, simulate};
use voxline_fixtures::noise;

/// 100 ms.
const CHUNK: usize = 800;
const PING: Duration = Duration::from_secs(10);

fn service_token() -> TokenProvider {
    TokenProvider::service(&"token".to_owned().into()).unwrap()
}

/// Sends the audio in real time.
async fn speak(sender: &mpsc::Sender<Feed>, pcm: &[i16], from: usize, to: usize) {
    for at in (from..to).step_by(CHUNK) {
        sleep(Duration::from_millis(100)).await;
        sender.send(chunk(pcm, at, CHUNK.min(to - at))).await.unwrap();
    }
}

/// Runs a session with `peer` over `lines`, fed by `feed`. Its events are received as they come.
async fn hold(
    settings: Settings,
    provider: &TokenProvider,
    lines: Vec<Line>,
    peer: &RecordingPeer,
    feed: impl AsyncFnOnce(mpsc::Sender<Feed>, SimulatedConnector),
) -> (Ended, Vec<Trace>, Vec<TranscriptEvent>) {
    let (connector, acceptor) = network::simulated(1, lines);
    let (sender, audio) = mpsc::channel(1);
    let (events, mut heard) = mpsc::channel(1);
    let listening = async {
        let mut told = Vec::new();
        while let Some(event) = heard.recv().await {
            told.push(event);
        }
        told
    };
    let run = Session::new(&connector, provider, settings).run(audio, events);
    let (ended, told, ()) = tokio::select! {
        all = async { tokio::join!(run, listening, feed(sender, connector.clone())) } => all,
        () = peer.serve_all(acceptor) => unreachable!("the connector lives"),
    };
    assert_eq!(peer.breaches(), [""; 0]);
    (ended, connector.traces(), told)
}

/// Rounds a time up to milliseconds, the resolution of tokio's clock.
fn rounded_up(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap())
}

/// Checks that the first connection, which vanished, was left two pings after its last sign of life, and
/// that the next was dialled when the backoff allows: to the millisecond.
fn assert_noticed(traces: &[Trace], seed: u64) {
    let [vanished, next] = traces else { panic!("{traces:?}") };
    let (struck, heard) = (vanished.struck.unwrap(), vanished.heard.unwrap());
    let noticed = heard + 2 * PING;
    assert_eq!(next.dialled, rounded_up(noticed + Backoff::new(seed).next_delay()));
    // The client waits two seconds for an answer to its close.
    assert_eq!(vanished.left, Some(noticed + Duration::from_secs(2)));
    assert!(noticed <= struck + 2 * PING + Duration::from_secs(1), "struck at {struck:?}");
}

#[test]
fn a_peer_that_vanishes_while_audio_flows_is_noticed_in_time() {
    for (seed, after) in [(1, 20_000), (2, 20_001), (3, 33_333), (4, 100_000)] {
        let (pcm, peer) = (noise(320_000), RecordingPeer::new(Behaviour::default()));
        let settings = Settings::new(RATE).with_seed(seed);
        let lines = vec![Line::with_fault(Fault::HalfOpen { after })];
        let feed = async |sender: mpsc::Sender<Feed>, _| {
            speak(&sender, &pcm, 0, pcm.len()).await;
            sender.send(Feed::End).await.unwrap();
        };
        let (ended, traces, _) = simulate(hold(settings, &service_token(), lines, &peer, feed));
        let ledger = ended.into_result().unwrap();
        assert_noticed(&traces, seed);
        assert_eq!(ledger.reconnects, 1);
        // All audio that was sent into the void was sent again.
        assert!(ledger.replayed > u64::from(RATE) * 15, "{ledger}");
        assert_eq!(peer.recording().bytes().unwrap(), bytes(&pcm));
    }
}

/// A service that takes all audio, answers every ping and never sends a final is given up within the bound
/// that the settings document.
#[test]
fn a_peer_that_acknowledges_and_never_answers_is_given_up_in_time() {
    let (pcm, settings) = (noise(RATE as usize), Settings::new(RATE).with_seed(0));
    let never = Behaviour { recognition: Duration::from_secs(86_400), ..Behaviour::default() };
    let peer = RecordingPeer::new(never);
    let feed = async |sender: mpsc::Sender<Feed>, _| {
        speak(&sender, &pcm, 0, pcm.len()).await;
        sender.send(Feed::End).await.unwrap();
    };
    let bound = settings.timeouts.give_up + 2 * settings.timeouts.progress;
    let (ended, traces, _) = simulate(hold(settings, &service_token(), vec![], &peer, feed));
    let Err(SessionError::Unreachable { reason, .. }) = &ended.result else { panic!("{:?}", ended.result) };
    assert_eq!(reason, "the peer made no progress for 60 s");
    // A second to speak; the rest is for the dials in between and the close.
    let left = traces.last().and_then(|trace| trace.left).unwrap();
    assert!(left <= Duration::from_secs(1) + bound + Duration::from_secs(15), "given up after {left:?}");
    assert_eq!((ended.ledger.recognised, ended.ledger.unfinished), (0, u64::from(RATE)));
    assert_eq!(peer.recording().bytes().unwrap(), bytes(&pcm), "it had all the audio");
}

/// A session takes no more audio than it has room for: whoever produces it waits, as a file does.
#[test]
fn a_source_waits_for_a_peer_that_finishes_nothing() {
    let pcm = noise(10 * RATE as usize);
    let peer =
        RecordingPeer::new(Behaviour { recognition: Duration::from_secs(86_400), ..Behaviour::default() });
    let mut settings = Settings::new(RATE).with_seed(0);
    settings.replay.frames = u64::from(RATE);
    let mut taken = 0;
    let feed = async |sender: mpsc::Sender<Feed>, _| {
        while let Ok(sent) = timeout(Duration::from_secs(10), sender.send(chunk(&pcm, taken, CHUNK))).await {
            sent.unwrap();
            taken += CHUNK;
        }
    };
    let (ended, _, _) = simulate(hold(settings, &service_token(), vec![], &peer, feed));
    assert!(ended.ledger.accepted > u64::from(RATE) / 2 && ended.ledger.accepted <= u64::from(RATE));
    // One chunk waits in the channel.
    assert!(taken as u64 <= ended.ledger.accepted + CHUNK as u64, "{taken} frames were taken");
}

#[test]
fn a_peer_that_vanishes_while_nobody_speaks_is_noticed_in_time() {
    let pcm = noise(16_000);
    let talk = async |sender: mpsc::Sender<Feed>, connector: SimulatedConnector| {
        speak(&sender, &pcm, 0, 8_000).await;
        sleep(Duration::from_secs(5)).await;
        let spoken = connector.traces()[0].up;
        sleep(Duration::from_secs(60)).await;
        speak(&sender, &pcm, 8_000, 16_000).await;
        sender.send(Feed::End).await.unwrap();
        spoken
    };
    let mut spoken = 0;
    let measure = async |sender, connector| spoken = talk(sender, connector).await;
    let peer = RecordingPeer::new(Behaviour::default());
    let (ended, traces, _) =
        simulate(hold(Settings::new(RATE).with_seed(0), &service_token(), vec![], &peer, measure));
    assert_eq!((ended.into_result().unwrap().reconnects, traces.len()), (0, 1), "pings are answered");
    // A ping has six bytes. The cuts are in the first ping, at its end, and in the second.
    for after in [1, 5, 6, 7].map(|more| spoken + more) {
        let peer = RecordingPeer::new(Behaviour::default());
        let lines = vec![Line::with_fault(Fault::HalfOpen { after })];
        let feed = async |sender, connector| _ = talk(sender, connector).await;
        let (ended, traces, _) =
            simulate(hold(Settings::new(RATE).with_seed(0), &service_token(), lines, &peer, feed));
        assert_noticed(&traces, 0);
        assert_eq!(ended.into_result().unwrap().reconnects, 1);
        assert_eq!(peer.recording().bytes().unwrap(), bytes(&pcm));
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a clock that stands still")]
fn a_user_who_takes_no_results_does_not_hold_up_the_audio() {
    let pcm = noise(80_000);
    simulate(async {
        let start = Instant::now();
        // A hundred finals a second.
        let peer =
            RecordingPeer::new(Behaviour { segment_frames: 80, ack_frames: 1, ..Behaviour::default() });
        let (connector, acceptor) = network::simulated(1, []);
        let (sender, audio) = mpsc::channel(1);
        let (events, mut heard) = mpsc::channel(1);
        let provider = service_token();
        let user = async {
            speak(&sender, &pcm, 0, pcm.len()).await;
            // The last chunk was taken at ten seconds, and arrives 10 ms later.
            sleep(Duration::from_millis(11)).await;
            assert_eq!(peer.received(), Some(FramePos(80_000)));
            assert_eq!(start.elapsed(), Duration::from_millis(10_011));
            sender.send(Feed::End).await.unwrap();
            sleep(Duration::from_secs(300)).await;
            let mut finals = 0;
            while let Some(event) = heard.recv().await {
                finals += usize::from(matches!(event, TranscriptEvent::Final(_)));
            }
            assert_eq!(finals, 1_000);
        };
        let run = Session::new(&connector, &provider, Settings::new(RATE).with_seed(0)).run(audio, events);
        let (ended, ()) = tokio::select! {
            both = async { tokio::join!(run, user) } => both,
            () = peer.serve_all(acceptor) => unreachable!("the connector lives"),
        };
        assert_eq!(ended.into_result().unwrap().finals, 1_000);
    });
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a clock that stands still")]
fn audio_is_taken_from_frame_zero_while_the_first_handshake_takes_five_seconds() {
    let (pcm, peer) = (noise(32_000), RecordingPeer::new(Behaviour::default()));
    let far = Duration::from_millis(1_250);
    let lines = vec![Line { up: far, down: far, ..Line::calm() }];
    let feed = async |sender: mpsc::Sender<Feed>, _| {
        let start = Instant::now();
        speak(&sender, &pcm, 0, pcm.len()).await;
        // Nothing waits in the channel: the session has all the audio, and has not sent anything yet.
        sleep(Duration::from_millis(10)).await;
        assert_eq!((sender.capacity(), peer.served()), (1, 0));
        assert_eq!(start.elapsed(), Duration::from_millis(4_010));
        sleep(Duration::from_millis(5_000 + 1_250 - 4_010 - 1)).await;
        assert_eq!(peer.served(), 0);
        sleep(Duration::from_millis(2)).await;
        assert_eq!(peer.served(), 1);
        sender.send(Feed::End).await.unwrap();
    };
    let (ended, _, _) =
        simulate(hold(Settings::new(RATE).with_seed(0), &service_token(), lines, &peer, feed));
    let ledger = ended.into_result().unwrap();
    assert_eq!((ledger.recognised, ledger.replayed), (32_000, 0));
    assert_eq!(peer.recording().bytes().unwrap(), bytes(&pcm));
}

#[test]
fn tokens_that_live_for_seconds_are_left_before_they_end() {
    let pcm = noise(480_000);
    for in_band in [true, false] {
        let tokens = ShortLivedTokens::new(Duration::from_secs(10));
        let (behaviour, provider) = simulate(async {
            let behaviour = Behaviour { tokens: Some(tokens.clone()), auth: in_band, ..Behaviour::default() };
            (behaviour, TokenProvider::from_source(tokens.clone()))
        });
        let peer = RecordingPeer::new(behaviour);
        let feed = async |sender: mpsc::Sender<Feed>, _| {
            speak(&sender, &pcm, 0, pcm.len()).await;
            sender.send(Feed::End).await.unwrap();
        };
        let (ended, traces, told) =
            simulate(hold(Settings::new(RATE).with_seed(0), &provider, vec![], &peer, feed));
        let ledger = ended.into_result().unwrap();
        assert_eq!((ledger.token_refusals, ledger.reconnects), (0, 0), "{ledger}");
        // One swap for each eight to nine seconds of the minute.
        assert!((6..=8).contains(&ledger.token_renewals), "{ledger}");
        assert_eq!(tokens.granted() as u64, ledger.token_renewals + 1);
        let moves = if in_band { 0 } else { ledger.token_renewals };
        assert_eq!((ledger.handovers, traces.len() as u64), (moves, moves + 1));
        assert!(!told.iter().any(|event| matches!(event, TranscriptEvent::Reconnected { .. })));
        assert_eq!(peer.recording().bytes().unwrap(), bytes(&pcm));
    }
}

fn ready(received: u64) -> Reply {
    let ready = Ready::new(FramePos(received), 2_000, 16_000);
    let key = "key".to_owned().into();
    Reply::Say(ServerMessage::Ready(ready.resumable("scripted", key, Duration::from_secs(60))))
}

fn final_(index: u64, start: u64, end: u64) -> Reply {
    let range = FramePos(start).to(FramePos(end));
    Reply::Say(ServerMessage::Final(voxline::protocol::Final::new(index, range, "said")))
}

/// A server that has lost the session receives the audio after the last final, and nothing else.
#[test]
fn a_server_that_knows_no_session_hears_all_above_the_last_final() {
    let pcm = noise(1_600);
    simulate(async {
        let (connector, mut acceptor) = network::simulated(1, []);
        let (sender, audio) = mpsc::channel(4);
        let (events, mut heard) = mpsc::channel(64);
        sender.send(chunk(&pcm, 0, 1_600)).await.unwrap();
        let heir = RecordingPeer::new(Behaviour::default());
        let serving = async {
            let first = ScriptedPeer::new([
                Step::new(Expect::Start, [ready(0)]),
                Step::new(Expect::Audio(FramePos(1_600)), [final_(0, 0, 600), Reply::Drop]),
            ]);
            first.serve(acceptor.accept().await.unwrap()).await.unwrap();
            let second =
                ScriptedPeer::new([Step::new(Expect::Resume, [Reply::Close(close::SESSION_UNKNOWN)])]);
            second.serve(acceptor.accept().await.unwrap()).await.unwrap();
            sender.send(Feed::End).await.unwrap();
            heir.serve_all(acceptor).await;
        };
        let provider = service_token();
        let run = Session::new(&connector, &provider, Settings::new(RATE).with_seed(0)).run(audio, events);
        let ended = tokio::select! {
            ended = run => ended,
            () = serving => unreachable!("the connector lives"),
        };
        let ledger = ended.into_result().unwrap();
        assert_eq!((ledger.recognised, ledger.finals, ledger.replayed), (1_600, 2, 1_000));
        let recording = heir.recording();
        assert!(recording.samples()[..600].iter().all(Option::is_none));
        let rest: Vec<i16> = recording.samples()[600..].iter().copied().map(Option::unwrap).collect();
        assert_eq!(rest, pcm[600..]);
        let mut finals = 0;
        while let Some(event) = heard.recv().await {
            finals += usize::from(matches!(event, TranscriptEvent::Final(_)));
        }
        assert_eq!(finals, 2);
    });
}

/// Sends these messages after `start`. Returns the peer's close code and the breaches that it recorded.
fn complaint(messages: Vec<Message>) -> (u16, Vec<String>) {
    let behaviour = Behaviour { window_frames: 100, ..Behaviour::default() };
    simulate(async {
        let peer = RecordingPeer::new(behaviour);
        let (connector, acceptor) = network::simulated(1, []);
        let client = async {
            let token = service_token().token().await.unwrap();
            let mut wire = connector.connect(&token, None).await.unwrap().into_wire();
            wire.send(Message::text(r#"{"type":"start","sample_rate":8000}"#));
            messages.into_iter().for_each(|message| wire.send(message));
            loop {
                match wire.next().await.unwrap().unwrap() {
                    Message::Close(frame) => break frame.unwrap().code,
                    _ => continue,
                }
            }
        };
        let code = tokio::select! {
            code = client => code,
            () = peer.serve_all(acceptor) => unreachable!("the connector lives"),
        };
        (code, peer.breaches())
    })
}

#[test]
fn a_recording_peer_catches_clients_that_cheat() {
    let audio = |at: u64, sample: u8, frames: u64| {
        let range = FramePos(at).to(FramePos(at + frames));
        Message::binary(encode_audio(&AudioChunk::new(range, vec![sample; 2 * frames as usize].into())))
    };
    let text = |text: &str| Message::text(text.to_owned());
    let cases = [
        (vec![audio(0, 1, 10), audio(0, 2, 10)], "frame 0 was 257, and is 514 now"),
        (vec![audio(0, 1, 10), audio(11, 1, 1)], "audio 11..12 leaves a hole after 10"),
        (vec![audio(0, 1, 101)], "audio 0..101 is beyond the window from 0"),
        (vec![text(r#"{"type":"finish","through":1}"#)], "finish through 1, received 0"),
        (vec![text(r#"{"type":"finish","through":0}"#), audio(0, 1, 1)], "audio 0..1 came after finish"),
        (vec![text(r#"{"type":"gap","from":5,"to":9}"#)], "gap 5..9 leaves a hole after 0"),
        (vec![text(r#"{"type":"auth","access_token":"t"}"#)], "auth is not understood here"),
        (vec![text(r#"{"type":"start","sample_rate":1}"#)], "this socket has a session already"),
    ];
    for (messages, expected) in cases {
        assert_eq!(complaint(messages), (close::PROTOCOL, vec![expected.to_owned()]));
    }
}

#[test]
fn a_script_says_where_the_client_left_it() {
    simulate(async {
        let (connector, mut acceptor) = network::simulated(1, []);
        let script = [Step::new(Expect::Start, [ready(0)]), Step::new(Expect::Flush, [])];
        let peer = ScriptedPeer::new(script);
        let client = async {
            let token = service_token().token().await.unwrap();
            let mut wire = connector.connect(&token, None).await.unwrap().into_wire();
            wire.send(Message::text(r#"{"type":"start","sample_rate":8000}"#));
            wire.send(Message::text(r#"{"type":"finish","through":0}"#));
            while let Some(Ok(_)) = wire.next().await {}
        };
        let serving = async { peer.serve(acceptor.accept().await.unwrap()).await };
        let ((), served) = tokio::join!(client, serving);
        let Err(ScriptError::Other { expected: Expect::Flush, heard }) = served else { panic!("{served:?}") };
        assert!(heard.contains("Finish"), "{heard}");
    });
}

/// Sends `count` bytes up a line. Returns the number of bytes that arrive, the end of the stream, and the
/// time taken.
#[allow(clippy::disallowed_methods, reason = "a clock that stands still")]
fn carried(line: Line, count: usize) -> (usize, Result<(), std::io::ErrorKind>, Duration) {
    simulate(async {
        let start = Instant::now();
        let (connector, mut acceptor) = network::simulated(1, [line]);
        let (client, server) = tokio::join!(connector.dial(), acceptor.accept());
        let (mut client, mut server) = (client.unwrap(), server.unwrap());
        let (mut heard, dialled) = (vec![0; count], start.elapsed());
        let sending = async {
            // A line that is cut may report an error.
            let _ = client.write_all(&vec![7; count]).await;
            let _ = client.shutdown().await;
        };
        let hearing = async {
            let mut at = 0;
            loop {
                match server.read(&mut heard[at..]).await {
                    Ok(0) => break (at, Ok(())),
                    Ok(more) => at += more,
                    Err(error) => break (at, Err(error.kind())),
                }
                if at == count {
                    break (at, Ok(()));
                }
            }
        };
        let ((), (arrived, end)) = tokio::join!(sending, hearing);
        assert!(heard[..arrived].iter().all(|byte| *byte == 7));
        (arrived, end, start.elapsed() - dialled)
    })
}

#[test]
fn lines_do_what_they_say() {
    let millis = Duration::from_millis;
    let fault = Line::with_fault;
    assert_eq!(carried(Line::calm(), 1_000), (1_000, Ok(()), millis(10)));
    let close = fault(Fault::CutClient { after: 50, cut: Cut::Close });
    assert_eq!(carried(close, 1_000), (50, Ok(()), millis(10)));
    // Bytes under way are lost.
    let reset = fault(Fault::CutClient { after: 50, cut: Cut::Reset });
    assert_eq!(carried(reset, 1_000), (0, Err(std::io::ErrorKind::ConnectionReset), millis(10)));
    let slow = fault(Fault::Trickle { bytes: 10, every: millis(100) });
    let (arrived, _, took) = carried(slow, 1_000);
    // Now and then a piece is smaller than it may be.
    assert!(arrived == 1_000 && took > millis(10_000) && took < millis(20_000), "{took:?}");
    assert_eq!(carried(fault(Fault::Delay(millis(70))), 9), (9, Ok(()), millis(80)));
    let paused = Line { pause: Some((0, millis(500))), ..Line::calm() };
    assert_eq!(carried(paused, 1), (1, Ok(()), millis(10)));
    let paused = Line { capacity: 10, ..paused };
    // The second ten bytes come after the pause, and each ten after that when the ten before have arrived.
    assert_eq!(carried(Line { piece: 1, ..paused }, 2), (2, Ok(()), millis(510)));
    let narrow = Line { capacity: 1, ..Line::calm() };
    assert_eq!(carried(narrow, 20), (20, Ok(()), millis(200)));
}

//! A server sends its sessions to another one. Each session starts there at its `final`, while the first
//! server still works.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use voxline::audio::{AudioChunk, Feed, FramePos};
use voxline::auth::{AccessToken, TokenGeneration, TokenProvider};
use voxline::peer::ConnectionLost;
use voxline::protocol::{ClientMessage, Final, GoawayReason, Ready, Secret, ServerMessage};
use voxline::session::machine::{ConnectionId, Input, Machine, Output};
use voxline::session::{Session, Settings};
use voxline::transcript::TranscriptEvent;
use voxline::transport::WebSocketConnector;
use voxline_testing::digest;
use voxline_testing::peer::{Behaviour, Expect, RecordingPeer, Reply, ScriptedPeer, Step};

use voxline_fixtures::noise;

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn ready() -> Reply {
    let ready = Ready::new(FramePos(0), 32_000, 160_000);
    let key = Secret::from("key".to_owned());
    Reply::Say(ServerMessage::Ready(ready.resumable("old", key, Duration::from_secs(60))))
}

fn final_(index: u64, start: u64, end: u64, text: &str) -> Reply {
    let mut segment = Final::new(index, FramePos(start).to(FramePos(end)), text);
    segment.context = Some(format!("context {index}"));
    Reply::Say(ServerMessage::Final(segment))
}

fn chunk(pcm: &[i16], start: usize, end: usize) -> Feed {
    let payload: Bytes = pcm[start..end].iter().flat_map(|sample| sample.to_le_bytes()).collect();
    Feed::Audio(AudioChunk::new(FramePos(start as u64).to(FramePos(end as u64)), payload))
}

/// The first server sends the session elsewhere and never closes by itself. The second receives all audio
/// above the first final result, with that result's context. The first is told that its session is no
/// longer wanted.
#[tokio::test]
async fn a_session_starts_at_its_final_where_the_server_sends_it_and_leaves_the_old_one() {
    let pcm = noise(16_000);
    let ((old, old_address), (new, new_address)) = (listen().await, listen().await);
    let goaway = ServerMessage::Goaway {
        reason: GoawayReason::Drain,
        deadline_ms: 60_000,
        restart: true,
        // This endpoint must not receive the token.
        endpoints: vec!["https://evil.example".to_owned(), format!("http://{new_address}")],
    };
    let script = ScriptedPeer::new([
        Step::new(Expect::Start, [ready()]),
        Step::new(Expect::Audio(FramePos(8_000)), [final_(0, 0, 4_000, "first"), Reply::Say(goaway)]),
        Step::new(Expect::End, []),
    ]);
    let peer = RecordingPeer::new(Behaviour { segment_frames: 4_000, ..Behaviour::default() });
    let (sender, audio) = mpsc::channel(8);
    for feed in [chunk(&pcm, 0, 8_000), chunk(&pcm, 8_000, 16_000)] {
        sender.send(feed).await.unwrap();
    }
    let serving_old = async {
        script.serve(old.accept().await.unwrap().0).await.unwrap();
        // Sent only now, because the client may wait for a server that has received everything.
        sender.send(Feed::End).await.unwrap();
    };
    let serving_new = async { peer.serve(new.accept().await.unwrap().0).await };
    let connector = WebSocketConnector::new(format!("http://{old_address}").parse().unwrap()).unwrap();
    let tokens = TokenProvider::service(&"token".to_owned().into()).unwrap();
    let (events, mut heard) = mpsc::channel(64);
    let running = Session::new(&connector, &tokens, Settings::new(16_000).with_seed(0)).run(audio, events);
    let all = async { tokio::join!(running, serving_old, serving_new) };
    let (ended, (), ()) =
        timeout(Duration::from_secs(30), Box::pin(all)).await.expect("both servers are left");
    assert!(ended.result.is_ok(), "{:?}", ended.result);
    assert_eq!((ended.ledger.handovers, ended.ledger.reconnects), (1, 0));
    let mut finals = Vec::new();
    while let Some(event) = heard.recv().await {
        if let TranscriptEvent::Final(segment) = event {
            finals.push((segment.range.start.0, segment.text));
        }
    }
    let text = |start: usize| (start as u64, digest(&pcm[start..start + 4_000]));
    assert_eq!(finals, [(0, "first".to_owned()), text(4_000), text(8_000), text(12_000)]);
    // The second server received all audio above the final result, and nothing below.
    let recording = peer.recording();
    assert!(recording.samples()[..4_000].iter().all(Option::is_none));
    assert!(recording.samples()[4_000..].iter().copied().eq(pcm[4_000..].iter().copied().map(Some)));
    assert_eq!(peer.breaches(), <[String; 0]>::default());
}

/// Returns a machine with one final result that was told to restart elsewhere, and has sent `start` there.
fn starting_anew() -> Machine {
    let mut machine = Machine::new(Settings::new(16_000).with_seed(0));
    let goaway = ServerMessage::Goaway {
        reason: GoawayReason::Drain,
        deadline_ms: 0,
        restart: true,
        endpoints: vec!["https://new.example".to_owned()],
    };
    for input in [
        Input::Tick,
        Input::Audio(AudioChunk::new(FramePos(0).to(FramePos(100)), Bytes::from(vec![0; 200]))),
        token(),
        Input::Connected(OLD),
        said(OLD, ready()),
        said(OLD, final_(0, 0, 50, "first")),
        Input::Peer(OLD, goaway),
    ] {
        machine.handle(input, Duration::ZERO);
    }
    let due = machine.wake_at().unwrap();
    machine.handle(Input::Tick, due);
    machine.handle(token(), due);
    let dials: Vec<(Option<String>, Vec<String>)> = std::iter::from_fn(|| machine.poll_output())
        .filter_map(|output| match output {
            Output::Dial { id: NEW, session, endpoints, .. } => Some((session, endpoints)),
            _ => None,
        })
        .collect();
    assert_eq!(dials, [(None, vec!["https://new.example".to_owned()])]);
    machine.handle(Input::Connected(NEW), due);
    let start = std::iter::from_fn(|| machine.poll_output()).find_map(|output| match output {
        Output::Send(NEW, ClientMessage::Start(start)) => Some(start),
        _ => None,
    });
    let start = start.expect("the session starts anew");
    assert_eq!((start.origin, start.context.as_deref()), (FramePos(50), Some("context 0")));
    machine
}

const OLD: ConnectionId = ConnectionId(0);
const NEW: ConnectionId = ConnectionId(1);

fn token() -> Input {
    Input::Token(AccessToken::new(&"token".to_owned().into(), TokenGeneration(1)).unwrap())
}

fn said(id: ConnectionId, reply: Reply) -> Input {
    let Reply::Say(message) = reply else { unreachable!("only messages are said") };
    Input::Peer(id, message)
}

/// Returns the texts that the user receives, and the codes with which connections are closed.
fn outcome(machine: &mut Machine) -> (Vec<String>, Vec<(ConnectionId, u16)>) {
    let (mut texts, mut closes) = (Vec::new(), Vec::new());
    while let Some(output) = machine.poll_output() {
        match output {
            Output::Emit(TranscriptEvent::Final(segment)) => texts.push(segment.text),
            Output::Close(id, code) => closes.push((id, code)),
            _ => {}
        }
    }
    (texts, closes)
}

/// Final results of the old server that come before the new one answers would move the start on the new
/// one. They are held back, and delivered only if the new server fails.
#[test]
fn what_the_old_server_says_meanwhile_is_told_if_the_new_one_fails_and_only_then() {
    let now = Duration::from_secs(2);
    let mut machine = starting_anew();
    machine.handle(said(OLD, final_(1, 50, 80, "second")), now);
    assert_eq!(outcome(&mut machine), (vec![], vec![]));
    machine.handle(Input::Lost(NEW, ConnectionLost::Ended), now);
    assert_eq!(outcome(&mut machine), (vec!["second".to_owned()], vec![]));

    let mut machine = starting_anew();
    machine.handle(said(OLD, final_(1, 50, 80, "second")), now);
    let Reply::Say(ServerMessage::Ready(mut ready)) = ready() else { unreachable!("made so") };
    (ready.session, ready.received) = ("new".to_owned(), FramePos(50));
    machine.handle(Input::Peer(NEW, ServerMessage::Ready(ready)), now);
    assert_eq!(outcome(&mut machine), (vec![], vec![(OLD, 1000)]));
    // The final results of the new session are numbered from 0.
    machine.handle(said(NEW, final_(0, 50, 80, "second again")), now);
    assert_eq!(outcome(&mut machine).0, ["second again"]);
}

/// A session that ends on the old server needs no new one.
#[test]
fn the_end_on_the_old_server_comes_before_the_start_on_the_new_one() {
    let now = Duration::from_secs(2);
    let mut machine = starting_anew();
    machine.handle(Input::Finish, now);
    machine.handle(said(OLD, final_(1, 50, 100, "second")), now);
    let done = ServerMessage::Done { frames: FramePos(100), finals: 2 };
    machine.handle(Input::Peer(OLD, done), now);
    assert_eq!(outcome(&mut machine), (vec!["second".to_owned()], vec![(NEW, 1000), (OLD, 1000)]));
}

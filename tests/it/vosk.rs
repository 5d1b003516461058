//! Sessions with a Vosk server over real sockets. The server here is written from the contract of
//! vosk-server (one reply per message, `{"eof" : 1}`, times in seconds) and shares no type with the client.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use voxline::audio::{AudioChunk, Feed, FramePos};
use voxline::auth::TokenProvider;
use voxline::protocol::vosk::Options;
use voxline::session::{Ended, Session, SessionError, Settings, Violation};
use voxline::transcript::{FinalSegment, TranscriptEvent};
use voxline::transport::VoskConnector;
use voxline_fixtures::deadline::within;
use voxline_fixtures::noise;
use voxline_testing::{Cut, Fault, FaultProxy, digest};

const RATE: u32 = 8_000;
/// Number of frames after which the server's utterances end, at the end of a message.
const UTTERANCE: usize = 6_000;
/// Frames in a chunk of the source.
const CHUNK: usize = 800;
/// Longest time that a session may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Vosk server, which recognises digests of samples instead of words.
struct VoskServer {
    listener: TcpListener,
    seen: Mutex<Seen>,
    /// Number of connections so far.
    connections: watch::Sender<usize>,
    /// Answer to the first message of audio, instead of a reply.
    nonsense: Option<&'static str>,
    /// `false` for the C++ server, which would take a configuration for audio.
    takes_config: bool,
    /// Number of frames that come before their replies, which are sent together then.
    unanswered: usize,
}

#[derive(Default)]
struct Seen {
    /// `Authorization` of each handshake.
    tokens: Vec<Option<String>>,
    configs: Vec<Value>,
    /// Frames of the longest message.
    longest_message: usize,
    ends: usize,
    /// Number of connections that have ended.
    left: usize,
    /// Largest number of connections at once.
    most_connections: usize,
}

impl VoskServer {
    async fn new() -> VoskServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        VoskServer {
            listener,
            seen: Mutex::default(),
            connections: watch::Sender::new(0),
            nonsense: None,
            takes_config: true,
            unanswered: 0,
        }
    }

    /// Returns a connector to the server.
    fn connector(&self) -> VoskConnector {
        let address = self.listener.local_addr().unwrap();
        VoskConnector::new(format!("http://{address}").parse().unwrap()).unwrap()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves all connections.
    async fn serve(&self) {
        let mut sockets = FuturesUnordered::new();
        loop {
            tokio::select! {
                stream = self.listener.accept() => sockets.push(self.socket(stream.unwrap().0)),
                Some(()) = sockets.next() => {}
            }
        }
    }

    async fn socket(&self, stream: TcpStream) {
        #[allow(clippy::result_large_err, reason = "the callback's type is the library's")]
        let note = |request: &Request, response: Response| {
            let token = request.headers().get("authorization");
            let mut seen = self.seen();
            seen.tokens.push(token.map(|token| token.to_str().unwrap().to_owned()));
            seen.most_connections = seen.most_connections.max(seen.tokens.len() - seen.left);
            self.connections.send_modify(|connections| *connections += 1);
            Ok(response)
        };
        let Ok(socket) = tokio_tungstenite::accept_hdr_async(stream, note).await else { return };
        self.recognise(socket).await;
        self.seen().left += 1;
    }

    async fn recognise(&self, mut socket: WebSocketStream<TcpStream>) {
        let (mut samples, mut start, mut configured) = (Vec::<i16>::new(), 0, !self.takes_config);
        let (mut replies, mut answered) = (Vec::new(), 0);
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Text(text) if text.as_str() == r#"{"eof" : 1}"# => {
                    self.seen().ends += 1;
                    replies.push(result(&samples, start).to_string());
                    for reply in replies.drain(..) {
                        let _ = socket.send(Message::text(reply)).await;
                    }
                    // The server closes by itself.
                    let _ = socket.close(None).await;
                }
                Message::Text(text) => {
                    assert!(!configured && samples.is_empty(), "{text}");
                    configured = true;
                    // A configuration is not answered.
                    self.seen().configs.push(serde_json::from_str(&text).unwrap());
                }
                Message::Binary(pcm) => {
                    assert!(configured && pcm.len().is_multiple_of(2));
                    samples.extend(pcm.chunks_exact(2).map(|bytes| i16::from_le_bytes([bytes[0], bytes[1]])));
                    self.note_message(pcm.len() / 2);
                    replies.push(self.reply(&samples, &mut start));
                    if samples.len() - answered < self.unanswered {
                        continue;
                    }
                    answered = samples.len();
                    for reply in replies.drain(..) {
                        if socket.send(Message::text(reply)).await.is_err() {
                            return;
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn note_message(&self, frames: usize) {
        let mut seen = self.seen();
        seen.longest_message = seen.longest_message.max(frames);
    }

    /// Returns the reply to the message that ends with the last of `samples`. The utterance begins at
    /// `start`.
    fn reply(&self, samples: &[i16], start: &mut usize) -> String {
        if let Some(nonsense) = self.nonsense {
            nonsense.to_owned()
        } else if samples.len() - *start >= UTTERANCE {
            result(samples, std::mem::replace(start, samples.len())).to_string()
        } else {
            json!({ "partial": "so far" }).to_string()
        }
    }
}

/// Returns the result of the utterance that begins at `start`.
fn result(samples: &[i16], start: usize) -> Value {
    if samples.len() == start {
        return json!({ "text": "" });
    }
    let text = digest(&samples[start..]);
    let seconds = |frame: usize| frame as f64 / f64::from(RATE);
    let word = json!({ "conf": 0.75, "start": seconds(start), "end": seconds(samples.len()), "word": text });
    json!({ "result": [word], "text": text })
}

/// Returns the feed of these samples from `at` on.
fn feed(pcm: &[i16], at: usize) -> Feed {
    let payload: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let range = FramePos(at as u64).to(FramePos((at + pcm.len()) as u64));
    Feed::Audio(AudioChunk::new(range, Bytes::from(payload)))
}

/// Returns the feeds of a recording, without the end.
fn feeds(pcm: &[i16]) -> Vec<Feed> {
    pcm.chunks(CHUNK).enumerate().map(|(index, chunk)| feed(chunk, index * CHUNK)).collect()
}

/// Runs a session to its end.
async fn run(
    server: &VoskServer,
    connector: &VoskConnector,
    feeds: Vec<Feed>,
) -> (Ended, Vec<TranscriptEvent>) {
    let feeding = async |audio: mpsc::Sender<Feed>| {
        for feed in feeds {
            // A session that has failed takes nothing.
            let _ = audio.send(feed).await;
        }
        audio
    };
    run_fed(server, connector, feeding).await
}

/// Runs a session whose audio comes from `feeding`, and then ends, to its end.
async fn run_fed(
    server: &VoskServer,
    connector: &VoskConnector,
    feeding: impl AsyncFnOnce(mpsc::Sender<Feed>) -> mpsc::Sender<Feed>,
) -> (Ended, Vec<TranscriptEvent>) {
    let tokens = TokenProvider::service(&"canary".to_owned().into()).unwrap();
    let (sender, audio) = mpsc::channel(4);
    let feeding = async {
        let _ = feeding(sender).await.send(Feed::End).await;
    };
    let (events, mut told) = mpsc::channel(4);
    let listening = async {
        let mut all = Vec::new();
        while let Some(event) = told.recv().await {
            all.push(event);
        }
        all
    };
    let session = Session::new(connector, &tokens, Settings::new(RATE).with_seed(0)).run(audio, events);
    let whole = async {
        let (ended, (), events) = tokio::join!(session, feeding, listening);
        (ended, events)
    };
    let served = async {
        tokio::select! {
            ended = whole => ended,
            () = server.serve() => unreachable!("it never ends"),
        }
    };
    within(PATIENCE, "the end of the session", Box::pin(served)).await
}

fn finals(events: &[TranscriptEvent]) -> Vec<&FinalSegment> {
    let finals = events.iter().filter_map(|event| match event {
        TranscriptEvent::Final(segment) => Some(segment),
        _ => None,
    });
    finals.collect()
}

/// Checks that each final was made of its own samples, and that its word is where they are.
fn assert_true(events: &[TranscriptEvent], pcm: &[i16]) {
    for segment in finals(events) {
        let range = segment.range;
        let samples = &pcm[range.start.0 as usize..range.end.0 as usize];
        assert_eq!(segment.text, digest(samples), "{range}");
        let words: Vec<_> = segment.words.iter().map(|word| (word.range, word.confidence)).collect();
        assert_eq!(words, [(range, 0.75)]);
    }
}

#[tokio::test]
async fn a_broken_connection_costs_a_vosk_session_nothing() {
    let pcm = noise(60_011);
    let server = VoskServer::new().await;
    // The first connection breaks while the client sends, the second while the server answers.
    let faults = [
        Fault::CutClient { after: 45_000, cut: Cut::Reset },
        Fault::CutServer { after: 900, cut: Cut::Close },
        Fault::Refuse,
    ];
    let proxy = FaultProxy::with_faults(server.listener.local_addr().unwrap(), faults).await.unwrap();
    let connector = VoskConnector::new(format!("http://{}", proxy.address()).parse().unwrap()).unwrap();
    let (ended, events) = run(&server, &connector, feeds(&pcm)).await;
    let ledger = ended.into_result().unwrap();
    assert_eq!((ledger.accepted, ledger.recognised, ledger.reconnects), (60_011, 60_011, 2), "{ledger}");
    assert_eq!((proxy.cuts(), proxy.connections()), (2, 4));
    assert!(ledger.replayed > 0);
    let mut end = FramePos::ZERO;
    for (index, segment) in finals(&events).into_iter().enumerate() {
        assert_eq!((segment.index, segment.range.start), (index as u64, end));
        end = segment.range.end;
    }
    assert_eq!(end, FramePos(60_011));
    assert_true(&events, &pcm);
    assert!(events.iter().any(|event| matches!(event, TranscriptEvent::Partial { .. })));
    let seen = server.seen();
    // A token is shown to no server that knows none.
    assert!(seen.tokens.len() == 3 && seen.tokens.iter().all(Option::is_none), "{:?}", seen.tokens);
    assert_eq!(seen.configs[0]["config"]["sample_rate"], RATE);
    assert_eq!(seen.ends, 1);
}

/// Vosk can't skip frames, so the audio behind a gap has a connection of its own. A flush has no effect.
#[tokio::test]
async fn a_gap_is_no_audio_to_a_vosk_server() {
    let pcm = noise(30_000);
    let server = VoskServer::new().await;
    let connector = server.connector().authorized();
    let (lost, found) = (10_000, 20_000);
    let gap = FramePos(lost as u64).to(FramePos(found as u64));
    let mut all = feeds(&pcm[..lost]);
    all.insert(3, Feed::Flush);
    all.push(Feed::Gap(gap));
    all.extend(
        pcm[found..].chunks(CHUNK).enumerate().map(|(index, chunk)| feed(chunk, found + index * CHUNK)),
    );
    let (ended, events) = run(&server, &connector, all).await;
    let ledger = ended.into_result().unwrap();
    assert_eq!((ledger.recognised, ledger.gaps, ledger.replayed), (20_000, 10_000, 0), "{ledger}");
    assert!(events.contains(&TranscriptEvent::Gap { range: gap }));
    assert_true(&events, &pcm);
    // 4,000 frames are left of the audio before the gap, which has a result of its own.
    assert!(finals(&events).iter().any(|segment| segment.range.end == gap.start));
    let seen = server.seen();
    assert_eq!((seen.tokens.len(), seen.ends), (2, 2));
    assert!(seen.tokens.iter().all(|token| token.as_deref() == Some("Bearer canary")));
}

/// A recording that is empty, or ends with a gap, needs nothing more from the server.
#[tokio::test]
async fn a_vosk_session_ends_where_its_source_does() {
    for (frames, gap) in [(0, 0), (700, 0), (700, 300), (0, 300)] {
        let pcm = noise(frames);
        let server = VoskServer::new().await;
        let end = FramePos(frames as u64);
        let mut all = feeds(&pcm);
        all.extend((gap > 0).then(|| Feed::Gap(end.to(end + gap))));
        let (ended, events) = run(&server, &server.connector(), all).await;
        let ledger = ended.into_result().unwrap();
        assert_eq!((ledger.recognised, ledger.gaps), (frames as u64, gap), "{ledger}");
        assert_true(&events, &pcm);
        let last = TranscriptEvent::End { frames: frames as u64 + gap, finals: ledger.finals };
        assert_eq!(events.last(), Some(&last));
    }
}

#[tokio::test]
async fn a_server_that_is_no_vosk_server_ends_the_session() {
    let server = VoskServer { nonsense: Some("0"), ..VoskServer::new().await };
    let (ended, _) = run(&server, &server.connector(), feeds(&noise(2_000))).await;
    let violation = ended.into_result().unwrap_err();
    assert!(matches!(violation, SessionError::Violation(Violation::Unreadable { .. })), "{violation:?}");
}

/// Two and a half seconds of audio come before the first reply. By default the session would wait for it
/// after two.
#[tokio::test]
async fn the_options_of_a_translation_reach_the_server() {
    let pcm = noise(60_011);
    let server = VoskServer { unanswered: 20_000, ..VoskServer::new().await };
    let mut options = Options::default();
    options.phrases = vec!["left".to_owned(), "right".to_owned()];
    options.window = Duration::from_secs(5);
    options.longest_message = Duration::from_millis(50);
    let (ended, events) = run(&server, &server.connector().with_options(options), feeds(&pcm)).await;
    let ledger = ended.into_result().unwrap();
    assert_eq!((ledger.recognised, ledger.replayed), (60_011, 0), "{ledger}");
    assert_true(&events, &pcm);
    let seen = server.seen();
    let config = json!({ "sample_rate": RATE, "words": true, "phrase_list": ["left", "right"] });
    assert_eq!(seen.configs, [json!({ "config": config })]);
    assert_eq!(seen.longest_message, 400);
}

#[tokio::test]
async fn a_server_that_takes_no_configuration_is_sent_none() {
    let pcm = noise(20_000);
    let server = VoskServer { takes_config: false, ..VoskServer::new().await };
    let mut options = Options::default();
    options.config = false;
    let (ended, events) = run(&server, &server.connector().with_options(options), feeds(&pcm)).await;
    assert_eq!(ended.into_result().unwrap().recognised, 20_000);
    assert_true(&events, &pcm);
    assert_eq!(server.seen().configs, [json!(null); 0]);
}

/// The source goes on once there is another connection, for which the session has no other reason than the
/// age of the first one. Nothing is lost, and the first connection stays until the other one is there.
#[tokio::test]
async fn a_connection_is_replaced_before_the_longest_session_is_over() {
    let pcm = noise(40_000);
    let server = VoskServer::new().await;
    let connector = server.connector().with_longest_session(Duration::from_millis(500));
    let mut connections = server.connections.subscribe();
    let feeding = async |audio: mpsc::Sender<Feed>| {
        let (before, after) = pcm.split_at(20_000);
        for feed in feeds(before) {
            audio.send(feed).await.unwrap();
        }
        connections.wait_for(|connections| *connections > 1).await.unwrap();
        for (index, chunk) in after.chunks(CHUNK).enumerate() {
            audio.send(feed(chunk, before.len() + index * CHUNK)).await.unwrap();
        }
        audio
    };
    let (ended, events) = run_fed(&server, &connector, feeding).await;
    let ledger = ended.into_result().unwrap();
    assert_eq!((ledger.recognised, ledger.gaps, ledger.reconnects), (40_000, 0, 0), "{ledger}");
    assert!(ledger.handovers > 0, "{ledger}");
    assert_true(&events, &pcm);
    assert!(server.seen().most_connections > 1);
}

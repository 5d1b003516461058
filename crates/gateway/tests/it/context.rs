//! The recogniser's context is sent with each final result and returned with `start`, so that a session
//! that restarts at `final` gives the text that it would have given undisturbed.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;
use voxline::audio::{Feed, FramePos, FrameRange};
use voxline::engine::{
    EngineError, PartialResult, RecognitionRequest, Recognizer, RecognizerStream, Segment,
};
use voxline::session::{Journal, ServerSession, Session, SessionError, Settings};
use voxline::spool::{Fsync, Head, Log, Opened, Spool};
use voxline::transcript::TranscriptEvent;
use voxline::transport::WebSocketConnector;
use voxline_testing::digest;

use voxline_fixtures::gateway::audio::chunks;
use voxline_fixtures::gateway::server::Server;
use voxline_fixtures::gateway::socket::Socket;
use voxline_fixtures::noise;

/// A quarter of a second.
const SEGMENT: usize = 4_000;
/// Longest context that the protocol document allows, in bytes.
const LONGEST: usize = 4 * 1024;

/// A recogniser whose text is a digest of its context and of the segment's samples. Its next context is
/// that digest, repeated to `length` bytes.
struct Remembering {
    length: usize,
}

struct Stream {
    length: usize,
    before: String,
    heard: Vec<i16>,
    told: u64,
}

impl Recognizer for Remembering {
    fn name(&self) -> &str {
        "remembering"
    }

    fn start(&self, request: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
        let before = request.context.clone().unwrap_or_default();
        Ok(Box::new(Stream { length: self.length, before, heard: Vec::new(), told: 0 }))
    }
}

impl Stream {
    fn segment(&mut self, frames: usize) -> Segment {
        let samples: Vec<i16> =
            self.before.bytes().map(i16::from).chain(self.heard.drain(..frames)).collect();
        let text = digest(&samples);
        self.before = text.chars().cycle().take(self.length).collect();
        let range = FrameRange::new(FramePos(self.told), FramePos(self.told + frames as u64));
        self.told = range.end.0;
        Segment { text, context: Some(self.before.clone()), ..Segment::silence(range) }
    }
}

impl RecognizerStream for Stream {
    fn push(&mut self, pcm: &[i16]) -> Result<Vec<Segment>, EngineError> {
        self.heard.extend_from_slice(pcm);
        let mut segments = Vec::new();
        while self.heard.len() >= SEGMENT {
            segments.push(self.segment(SEGMENT));
        }
        Ok(segments)
    }

    fn partial(&mut self) -> Result<PartialResult, EngineError> {
        Ok(PartialResult::Nothing)
    }

    fn flush(&mut self) -> Result<Vec<Segment>, EngineError> {
        let rest = self.heard.len();
        Ok(if rest == 0 { Vec::new() } else { vec![self.segment(rest)] })
    }
}

async fn server(length: usize) -> Server {
    Server::start(Arc::new(Remembering { length })).await
}

/// The journal of a client that is killed after it has recorded `lives` final results.
struct Mortal {
    log: Log,
    lives: usize,
    texts: Vec<String>,
}

impl Journal for Mortal {
    fn record_server(&mut self, server: &ServerSession) -> io::Result<()> {
        self.log.record_server(server)
    }

    fn record_event(&mut self, event: &TranscriptEvent) -> io::Result<()> {
        if let TranscriptEvent::Final(segment) = event {
            self.lives = self.lives.checked_sub(1).ok_or_else(|| io::Error::other("killed"))?;
            self.texts.push(segment.text.clone());
        }
        self.log.record_event(event)
    }
}

/// Runs the session in the spool at `path`, of this sample rate, against a new gateway, up to its end or
/// until `lives` more final results are recorded. Returns all texts recorded so far, and whether the session
/// has ended.
async fn go_on(path: &Path, pcm: &[i16], sample_rate: u32, lives: usize) -> (Vec<String>, bool) {
    let server = server(LONGEST).await;
    let head = Head { sample_rate, identity: "a call".to_owned(), service: String::new() };
    let opened = Spool::open(path, &head, 960_000, Fsync::Never).unwrap();
    let Opened { mut writer, mut reader, log, recovered, spool: _spool } = opened;
    chunks(pcm).chain([Feed::End]).for_each(|feed| writer.push(&feed).unwrap());
    let texts = recovered.events.iter().filter_map(text_of).collect();
    let mut journal = Mortal { log, lives, texts };
    let (sender, audio) = mpsc::channel(4);
    let feeding = async move {
        while let Some(feed) = reader.next().await.unwrap() {
            if sender.send(feed).await.is_err() {
                break;
            }
        }
    };
    let (connector, tokens) = (WebSocketConnector::new(server.endpoint()).unwrap(), server.tokens());
    let (settings, checkpoint) = (Settings::new(sample_rate).with_seed(0), recovered.checkpoint);
    // The receiver of events is dropped: the test reads the journal.
    let (events, _) = mpsc::channel(4);
    let running = Session::new(&connector, &tokens, settings)
        .resume(checkpoint)
        .journal(&mut journal)
        .run(audio, events);
    let playing = async { tokio::join!(running, feeding) };
    let (ended, ()) = timeout(Duration::from_secs(30), playing).await.expect("the session ends");
    server.stop().await;
    let ended = match ended.result {
        Ok(()) => true,
        Err(SessionError::Journal { source }) if source.to_string() == "killed" => false,
        Err(error) => panic!("{error}"),
    };
    (journal.texts, ended)
}

fn text_of(event: &TranscriptEvent) -> Option<String> {
    match event {
        TranscriptEvent::Final(segment) => Some(segment.text.clone()),
        _ => None,
    }
}

/// Client and gateway are restarted after every final result. The next client knows only its spool, and the
/// next gateway only what the client sends.
#[tokio::test]
async fn a_session_that_begins_anew_at_every_final_gives_the_undisturbed_text() {
    let directory = tempfile::tempdir().unwrap();
    let pcm = noise(10 * SEGMENT + 1_000);
    // At the other rates audio is resampled, of which no sample may depend on those before a final.
    for (rate, count) in [(16_000, 11), (8_000, 21), (44_100, 4)] {
        let path = |name: &str| directory.path().join(format!("{name} {rate}"));
        let (undisturbed, ended) = go_on(&path("undisturbed"), &pcm, rate, usize::MAX).await;
        assert!(ended && undisturbed.len() == count, "{rate} Hz: {undisturbed:?}");
        for finals in 1..=count {
            let (texts, ended) = go_on(&path("disturbed"), &pcm, rate, 1).await;
            assert_eq!(texts, undisturbed[..finals], "{rate} Hz");
            assert_eq!(ended, finals == count, "{rate} Hz");
        }
    }
}

#[tokio::test]
async fn what_follows_a_gap_is_heard_in_the_context_before_it() {
    let server = server(100).await;
    let token = server.tokens().token().await.unwrap();
    let pcm = noise(4 * SEGMENT);
    let segment = SEGMENT as u64;
    let (mut socket, _) = Socket::start(&server, &token).await;
    socket.audio(&pcm, 0, segment);
    let context = socket.hear("final").await["context"].clone();
    socket.gap(segment, 2 * segment);
    socket.audio(&pcm, 2 * segment, 3 * segment);
    let behind = socket.hear("final").await;
    drop(socket);
    // A new session that starts there gives the same text.
    let mut anew = Socket::dial(&server, &token).await;
    let start = json!({ "type": "start", "sample_rate": 16_000, "origin": 2 * segment, "context": context });
    anew.say(&start);
    anew.hear("ready").await;
    anew.audio(&pcm, 2 * segment, 3 * segment);
    let again = anew.hear("final").await;
    assert_eq!(again["text"], behind["text"]);
    assert_eq!(again["context"], behind["context"]);
    drop(anew);
    server.stop().await;
}

#[tokio::test]
async fn a_context_of_4_kib_passes_and_no_longer_one() {
    let longest = "я".repeat(LONGEST / 2);
    for length in [LONGEST, LONGEST + 1] {
        let server = server(length).await;
        let token = server.tokens().token().await.unwrap();
        let begin = async |context: &str| {
            let mut socket = Socket::dial(&server, &token).await;
            socket.say(&json!({ "type": "start", "sample_rate": 16_000, "context": context }));
            socket
        };
        let mut socket = begin(&longest).await;
        socket.hear("ready").await;
        socket.audio(&noise(SEGMENT), 0, SEGMENT as u64);
        let told = socket.hear("final").await["context"].as_str().map(str::len);
        // A context that is too long is dropped, not truncated: a half of it would mean something else.
        assert_eq!(told, Some(if length > LONGEST { 0 } else { LONGEST }));
        socket.end(SEGMENT as u64).await;
        let (code, reason, _) = begin(&format!("{longest}.")).await.closed().await;
        assert_eq!((code, reason.as_str()), (4400, "context of 4097 bytes, the limit is 4096"));
        server.stop().await;
    }
}

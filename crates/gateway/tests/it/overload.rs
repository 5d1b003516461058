//! More clients than the gateway can serve: admitted clients are served as ever, and all others are refused
//! at once.

use std::num::NonZero;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::{Response, StatusCode};
use secrecy::ExposeSecret;
use serde_json::json;
use tokio::time::timeout;
use voxline::auth::AccessToken;
use voxline::engine::{
    EngineError, PartialResult, RecognitionRequest, Recognizer, RecognizerStream, Segment,
};
use voxline::recovery::{Failure, FailureKind};
use voxline::transport::{Connect, WebSocketConnector};
use voxline_gateway::Options;
use voxline_gateway::authority::Terms;
use voxline_testing::DigestRecognizer;

use crate::stream::{audio, digest};
use voxline_fixtures::gateway::http::{http_client, refusal, url};
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::socket::Socket;
use voxline_fixtures::gateway::tokens::{bearer, foreign, minted};

const CAPACITY: usize = 4;
const FRAMES: u64 = 10 * 16_000;
const SEGMENT: usize = 8_000;

/// Sends the upgrade request of a client that wants a session of its own. Returns the answer.
async fn ask(server: &Server, http: &reqwest::Client, token: &str) -> Response {
    let request = http.get(url(server, "/asr_stream/ws")).bearer_auth(token);
    let request = request.header("upgrade", "websocket").header("connection", "upgrade");
    let request = request.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let request =
        request.header("sec-websocket-version", "13").header("sec-websocket-protocol", "voxline.asr.v1");
    request.send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "the figures that it prints")]
async fn ten_times_the_capacity_is_refused_at_once_and_costs_nobody_a_word() {
    let options = Options { max_sessions: CAPACITY, ..Options::default() };
    let server =
        Server::with(Arc::new(DigestRecognizer::new(SEGMENT)), Setup { options, ..Setup::default() }).await;
    let (http, token) = (http_client().unwrap(), server.tokens().token().await.unwrap());
    let plain = minted(&server);
    let pcm = audio(FRAMES);
    let mut admitted = Vec::new();
    for _ in 0..CAPACITY {
        let (mut socket, ready) = Socket::start(&server, &token).await;
        socket.audio(&pcm, 0, FRAMES / 2);
        admitted.push((socket, ready));
    }

    let slowest = join_all((0..10 * CAPACITY).map(|_| async {
        let asked = Instant::now();
        let answer = ask(&server, &http, plain.expose_secret()).await;
        assert_eq!(answer.headers()["retry-after"], "5");
        assert_eq!(refusal(answer).await, (StatusCode::TOO_MANY_REQUESTS, 429));
        let task = http.post(url(&server, "/asr_stream/create_task")).bearer_auth(plain.expose_secret());
        let answer = task.send().await.unwrap();
        assert_eq!(answer.headers()["retry-after"], "5");
        assert_eq!(refusal(answer).await, (StatusCode::TOO_MANY_REQUESTS, 429));
        asked.elapsed()
    }));
    let slowest = slowest.await.into_iter().max().unwrap();
    println!("{} refused while {CAPACITY} are served, the last after {slowest:?}", 20 * CAPACITY);

    // A session can still move to another socket, though there is no room for another session.
    let expected: Vec<String> = pcm.chunks(SEGMENT).map(digest).collect();
    for (mut socket, ready) in admitted {
        while socket.final_ < FRAMES / 2 {
            socket.hear("ack").await;
        }
        let seen = socket.finals.len();
        let (mut moved, _) = Socket::resume(&server, &token, &ready, seen as u64).await;
        moved.audio(&pcm, FRAMES / 2, FRAMES);
        moved.finish(FRAMES);
        moved.hear("done").await;
        let heard = socket.finals.iter().chain(&moved.finals).map(|segment| segment.text.clone());
        assert_eq!(heard.collect::<Vec<_>>(), expected);
    }
    server.stop().await;
}

/// Opens sockets that never send `start`, until one is refused. Returns the sockets and the refusal.
async fn hoard(server: &Server, token: &AccessToken) -> (Vec<Socket>, Failure) {
    let connector = WebSocketConnector::new(server.endpoint()).unwrap();
    let mut sockets = Vec::new();
    loop {
        assert!(sockets.len() < 10 * CAPACITY, "idle sockets are not limited");
        match connector.connect(token, None).await {
            Ok(wire) => sockets.push(Socket::on(wire)),
            Err(refused) => return (sockets, refused),
        }
    }
}

/// Runs a whole session of a client that is unrelated to the others.
async fn speak(server: &Server, token: &AccessToken) {
    let pcm = audio(SEGMENT as u64);
    let (mut socket, _) = Socket::start(server, token).await;
    socket.audio(&pcm, 0, SEGMENT as u64);
    let finals = socket.end(SEGMENT as u64).await;
    assert_eq!(finals.iter().map(|segment| &segment.text).collect::<Vec<_>>(), [&digest(&pcm)]);
}

#[tokio::test]
async fn a_token_of_one_session_takes_two_sockets_and_no_more() {
    let options = Options { max_sessions: CAPACITY, ..Options::default() };
    let server =
        Server::with(Arc::new(DigestRecognizer::new(SEGMENT)), Setup { options, ..Setup::default() }).await;
    let (other, authority) = (bearer(&foreign(&server)), server.gateway.authority());
    let terms = Terms { max_sessions: Some(1), ..Terms::default() };
    let limited = bearer(&authority.create_service_token("test", terms).unwrap().token);
    let (mut hoarded, refused) = hoard(&server, &limited).await;
    assert_eq!((hoarded.len(), refused.kind), (2, FailureKind::Limit), "{}", refused.reason);
    for _ in 0..2 * CAPACITY {
        speak(&server, &other).await;
    }
    // One of the two sockets still gets its session.
    let socket = &mut hoarded[1];
    socket.say(&json!({ "type": "start", "sample_rate": 16_000 }));
    socket.hear("ready").await;
    drop(hoarded);
    server.stop().await;
}

#[tokio::test]
async fn idle_sockets_give_way_to_another_project() {
    let options = Options { max_sessions: CAPACITY, ..Options::default() };
    let server =
        Server::with(Arc::new(DigestRecognizer::new(SEGMENT)), Setup { options, ..Setup::default() }).await;
    let other = bearer(&foreign(&server));
    let greedy = bearer(&minted(&server));
    let (mut hoarded, refused) = hoard(&server, &greedy).await;
    assert_eq!((hoarded.len(), refused.kind), (CAPACITY, FailureKind::Limit), "{}", refused.reason);
    let readiness = http_client().unwrap().get(url(&server, "/readyz")).send().await.unwrap();
    assert_eq!(readiness.status(), StatusCode::OK, "there is room for sessions");
    speak(&server, &other).await;
    // The socket that had waited longest is closed with a reason. The others may still start.
    let (code, reason, _) = hoarded[0].closed().await;
    assert_eq!(code, 1013, "{reason}");
    hoarded[1].say(&json!({ "type": "start", "sample_rate": 16_000 }));
    hoarded[1].hear("ready").await;
    drop(hoarded);
    server.stop().await;
}

/// A recogniser that signals each piece of audio, and then blocks until it is released.
#[derive(Clone)]
struct Held {
    begun: mpsc::Sender<()>,
    release: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Recognizer for Held {
    fn name(&self) -> &str {
        "held"
    }

    fn start(&self, _: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
        Ok(Box::new(self.clone()))
    }
}

impl RecognizerStream for Held {
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

#[tokio::test]
async fn a_machine_that_falls_behind_takes_nobody_in() {
    let (begun, beginning) = mpsc::channel();
    let (hold, release) = mpsc::channel();
    let threads = NonZero::<usize>::MIN;
    let options = Options { threads, drain: Duration::ZERO, ..Options::default() };
    let recognizer = Arc::new(Held { begun, release: Arc::new(Mutex::new(release)) });
    let server = Server::with(recognizer, Setup { options, ..Setup::default() }).await;
    let (http, token) = (http_client().unwrap(), server.tokens().token().await.unwrap());
    let plain = minted(&server);
    let readiness = || async { http.get(url(&server, "/readyz")).send().await.unwrap() };
    assert_eq!(readiness().await.status(), StatusCode::OK);

    let pcm = audio(1_600);
    let (mut first, _) = Socket::start(&server, &token).await;
    let (mut second, _) = Socket::start(&server, &token).await;
    first.audio(&pcm, 0, 1_600);
    first.acknowledged(1_600).await;
    tokio::task::spawn_blocking(move || beginning.recv().unwrap()).await.unwrap();
    second.audio(&pcm, 0, 1_600);
    second.acknowledged(1_600).await;
    let late = async { while readiness().await.status() == StatusCode::OK {} };
    timeout(Duration::from_secs(30), late).await.expect("the second waits for the thread of the first");
    let answer = ask(&server, &http, plain.expose_secret()).await;
    assert_eq!(answer.headers()["retry-after"], "5");
    assert_eq!(refusal(answer).await, (StatusCode::SERVICE_UNAVAILABLE, 503));

    drop(hold);
    let ready = async { while readiness().await.status() != StatusCode::OK {} };
    timeout(Duration::from_secs(30), ready).await.expect("it catches up");
    assert_eq!(ask(&server, &http, plain.expose_secret()).await.status(), StatusCode::SWITCHING_PROTOCOLS);
    server.stop().await;
}

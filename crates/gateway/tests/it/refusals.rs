//! Requests that the gateway refuses: the form of the refusals, and how work for a client that has gone is
//! stopped.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use reqwest::Method;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use voxline::engine::{
    EngineError, PartialResult, RecognitionRequest, Recognizer, RecognizerStream, Segment,
};
use voxline_gateway::Options;
use voxline_testing::DigestRecognizer;

use voxline_fixtures::gateway::audio::wav;
use voxline_fixtures::gateway::http::{access_token, http_client, refusal, url};
use voxline_fixtures::gateway::server::{Server, Setup};

#[tokio::test]
async fn every_refusal_has_the_shape_of_the_api() {
    let server = Server::start(Arc::new(DigestRecognizer::new(16_000))).await;
    let http = http_client().unwrap();
    let token = access_token(&server, &http).await;
    let ask = |method: Method, path: &str, token: &str| {
        http.request(method, url(&server, path)).bearer_auth(token).send()
    };
    for (method, path, status) in [
        (Method::GET, "/nothing", 404),
        (Method::GET, "/tts/", 404),
        (Method::POST, "/asr/more", 404),
        (Method::GET, "/tts?text=a&text=b", 400),
        (Method::POST, "/tts?tempo=1&tempo=1", 400),
        (Method::POST, "/asr?language=en&language=ru", 400),
    ] {
        let answer = ask(method.clone(), path, &token).await.unwrap();
        let (told, code) = refusal(answer).await;
        assert_eq!((told.as_u16(), code), (status, status.into()), "{method} {path}");
    }
    for (method, path, allowed) in [
        (Method::GET, "/asr", "POST"),
        (Method::DELETE, "/tts", "GET,HEAD,POST"),
        (Method::POST, "/asr_stream/ws", "GET,HEAD"),
        (Method::GET, "/auth/oauth/v1/token", "POST"),
        (Method::PUT, "/healthz", "GET,HEAD"),
    ] {
        let answer = ask(method.clone(), path, &token).await.unwrap();
        assert_eq!(answer.headers()["allow"], allowed, "{method} {path}");
        let (told, code) = refusal(answer).await;
        assert_eq!((told.as_u16(), code), (405, 405), "{method} {path}");
    }
    // A client without a valid token learns nothing about the query.
    for (method, path) in [
        (Method::GET, "/tts?text=a&text=b"),
        (Method::POST, "/tts?tempo=1&tempo=1"),
        (Method::POST, "/asr?language=en&language=ru"),
    ] {
        let (told, code) = refusal(ask(method, path, "wrong").await.unwrap()).await;
        assert_eq!((told.as_u16(), code), (401, 4048), "{path}");
    }
    server.stop().await;
}

/// A recogniser that is slow with each piece of audio. It counts the samples, and reports their number when
/// it ends.
struct Slow {
    started: Sender<()>,
    ended: Sender<usize>,
}

impl Recognizer for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn start(&self, _: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
        let (busy, never) = channel();
        let (started, ended) = (self.started.clone(), self.ended.clone());
        Ok(Box::new(SlowStream { heard: 0, started, ended, _busy: busy, never }))
    }
}

struct SlowStream {
    heard: usize,
    started: Sender<()>,
    ended: Sender<usize>,
    _busy: Sender<()>,
    never: Receiver<()>,
}

impl Drop for SlowStream {
    fn drop(&mut self) {
        self.ended.send(self.heard).unwrap();
    }
}

impl RecognizerStream for SlowStream {
    fn push(&mut self, pcm: &[i16]) -> Result<Vec<Segment>, EngineError> {
        if self.heard == 0 {
            self.started.send(()).unwrap();
        }
        self.heard += pcm.len();
        let _ = self.never.recv_timeout(Duration::from_millis(10));
        Ok(Vec::new())
    }

    fn partial(&mut self) -> Result<PartialResult, EngineError> {
        Ok(PartialResult::Nothing)
    }

    fn flush(&mut self) -> Result<Vec<Segment>, EngineError> {
        Ok(Vec::new())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_is_not_heard_to_its_end_when_its_client_is_gone() {
    let ((started, starts), (ended, ends)) = (channel(), channel());
    let setup = Setup { options: Options { max_requests: 1, ..Options::default() }, ..Setup::default() };
    let server = Server::with(Arc::new(Slow { started, ended }), setup).await;
    let http = http_client().unwrap();
    let token = access_token(&server, &http).await;
    const FRAMES: u32 = 16_000 * 299;
    let recording = wav(1, 16_000, FRAMES);
    let head = format!(
        "POST /asr HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n",
        recording.len()
    );
    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(&recording).await.unwrap();
    let listening = move || {
        starts.recv().unwrap();
        drop(client);
        ends.recv().unwrap()
    };
    let heard = tokio::task::spawn_blocking(listening).await.unwrap();
    assert!(heard > 0 && heard < FRAMES as usize / 2, "{heard}");
    let [usage] = &server.gateway.authority().usage(None).unwrap()[..] else { panic!("one client asked") };
    assert_eq!(usage.total.audio_ms, heard as u64 / 16);
    // The slot is free a moment after the recogniser's stream has ended.
    let free = async {
        let ask = || http.post(url(&server, "/asr")).bearer_auth(&token).body("no audio").send();
        while ask().await.unwrap().status().as_u16() == 429 {}
    };
    timeout(Duration::from_secs(10), free).await.expect("the place is kept");
    server.stop().await;
}

#[tokio::test]
async fn readiness_is_told_without_a_token_and_with_its_reason() {
    let server = Server::start(Arc::new(DigestRecognizer::new(16_000))).await;
    let http = http_client().unwrap();
    let answer = http.get(url(&server, "/readyz")).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    assert_eq!(answer.text().await.unwrap(), r#"{"status":"ready"}"#);
    server.stop().await;

    let full = Options { max_sessions: 0, ..Options::default() };
    let server =
        Server::with(Arc::new(DigestRecognizer::new(16_000)), Setup { options: full, ..Setup::default() })
            .await;
    let answer = http.get(url(&server, "/readyz")).send().await.unwrap();
    assert_eq!(answer.headers()["retry-after"], "5");
    let (told, code) = refusal(answer).await;
    assert_eq!((told.as_u16(), code), (503, 503));
    server.stop().await;
}

//! Requests that the gateway refuses: the form of the refusals, and how work for a client that has gone is
//! stopped.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use reqwest::Method;
use secrecy::ExposeSecret;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use voxline::engine::{
    EngineError, PartialResult, RecognitionRequest, Recognizer, RecognizerStream, Segment,
};
use voxline_gateway::Options;
use voxline_gateway::authority::{Budget, Scope, Terms};
use voxline_testing::{DigestRecognizer, ManualClock};

use crate::cli::{Place, assert_fails, text};
use crate::gateway::{Tone, access_token, refusal, url, wav};
use crate::support::http::http_client;
use crate::support::server::{Server, Setup};

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

/// The error messages of the program contain the service's own reason. Its exit codes tell authentication
/// (4) from limits (6).
#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_told_the_reason_of_the_service() {
    const USED_UP: Budget = Budget { per_day: None, total: Some(0) };
    const USED_UP_TODAY: Budget = Budget { per_day: Some(0), total: None };
    // Less than the length of the recording.
    const A_SECOND: Budget = Budget { per_day: None, total: Some(1) };
    const A_SECOND_TODAY: Budget = Budget { per_day: Some(1), total: None };
    // 2023-11-14, 22:13:20 UTC: midnight is far.
    let clock = ManualClock::new(Duration::from_secs(1_700_000_000));
    let setup = Setup { clock: Arc::new(clock), voices: Tone::voices(), ..Setup::default() };
    let server = Server::with(Arc::new(DigestRecognizer::new(16_000)), setup).await;
    let scopes = |scope: Scope| [scope].into_iter().collect();
    let networks = vec!["10.0.0.0/8".parse().unwrap()];
    // The terms of a token, and the outcomes of `transcribe` and of `speak` with it.
    let cases = [
        (
            Terms { networks, ..Terms::default() },
            (4, "(status 403): token is not for this address"),
            (4, "(status 403): token is not for this address"),
        ),
        (
            Terms { audio: USED_UP, characters: USED_UP, ..Terms::default() },
            (6, "(status 403): the token's budget of audio is used up"),
            (6, "(status 403): the token's budget of characters is used up"),
        ),
        (
            Terms { audio: A_SECOND, scopes: scopes(Scope::AsrStream), ..Terms::default() },
            (6, "closed the connection with code 4403: the token's budget of audio is used up"),
            (4, "(status 403): token has no scope tts"),
        ),
        (
            // The session is closed with 4429. Its resumption is refused until midnight.
            Terms { audio: A_SECOND_TODAY, scopes: scopes(Scope::AsrStream), ..Terms::default() },
            (6, "(status 429): the token's budget of audio for today is used up"),
            (4, "(status 403): token has no scope tts"),
        ),
        (
            Terms { audio: USED_UP_TODAY, scopes: scopes(Scope::AsrStream), ..Terms::default() },
            (6, "(status 429): the token's budget of audio for today is used up"),
            (4, "(status 403): token has no scope tts"),
        ),
        (
            Terms { scopes: scopes(Scope::Tts), ..Terms::default() },
            (4, "(status 403): token has no scope asr_stream"),
            (0, ""),
        ),
    ];
    let authority = server.gateway.authority();
    let mint =
        |terms| authority.create_service_token("test", terms).unwrap().token.expose_secret().to_owned();
    let mut tried: Vec<_> = cases.map(|(terms, heard, spoken)| (mint(terms), heard, spoken)).into();
    authority.create_project("disabled").unwrap();
    let disabled = authority.create_service_token("disabled", Terms::default()).unwrap();
    authority.set_active("disabled", false).unwrap();
    let inactive = (4, "(status 400): project is inactive");
    tried.push((disabled.token.expose_secret().to_owned(), inactive, inactive));
    let unknown =
        (4, "(status 401): token is missing, unknown or expired; a service token can't be refreshed");
    tried.push(("vxs_unknown".to_owned(), unknown, unknown));

    let endpoint = server.endpoint().to_string();
    let client_id = server.credentials.client_id.clone();
    let trying = tokio::task::spawn_blocking(move || {
        let place = Place::new();
        place.file("a.wav", wav(1, 16_000, 48_000));
        for (token, heard, spoken) in tried {
            place.secret("token", token);
            let service = ["--endpoint", &endpoint, "--token-file", "token"];
            for (command, (code, reason)) in [
                (&["transcribe", "a.wav", "--patience", "5"][..], heard),
                (&["speak", "Hi.", "-o", "hi.wav"], spoken),
            ] {
                let done = place.run(&[command, &service].concat());
                if code == 0 {
                    assert_eq!(done.status.code(), Some(0), "{command:?}: {done:?}");
                } else {
                    assert_fails(&done, code, &[reason]);
                    // A close in the middle of a stream is reported without the endpoint's name.
                    let names_service = text(&done.stderr).contains(&endpoint);
                    assert!(names_service || reason.starts_with("closed"), "{done:?}");
                }
            }
        }
        place.secret("secret", "wrong");
        let service = ["--endpoint", &endpoint, "--client-id", &client_id, "--client-secret-file", "secret"];
        let refused = place.run(&[&["transcribe", "a.wav"][..], &service].concat());
        assert_fails(&refused, 4, &[&endpoint, "(status 401): client id or secret is wrong"]);
    });
    trying.await.unwrap();
    server.stop().await;
}

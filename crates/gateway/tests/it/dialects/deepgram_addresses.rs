//! Addresses in requests to Deepgram's API: recordings that are fetched, and callbacks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::Redirect;
use axum::routing::{any, get};
use http::header::LOCATION;
use http::{HeaderMap, Method, StatusCode};
use reqwest::Response;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;
use voxline_gateway::authority::Terms;
use voxline_gateway::{Options, RecordingOptions};

use super::peer::PATIENCE;
use super::stage::Stage;
use voxline_fixtures::gateway::audio::wav;
use voxline_fixtures::gateway::http::url;
use voxline_fixtures::gateway::server::Setup;

/// A request that a callback made.
struct Called {
    method: Method,
    headers: HeaderMap,
    body: Value,
}

/// A server of the client's: it has a recording at `/a.wav`, and takes callbacks at `/results`.
struct Site {
    address: SocketAddr,
    calls: UnboundedReceiver<Called>,
    /// Number of callbacks that are refused before one is accepted.
    refusals: Arc<AtomicU16>,
}

#[derive(Clone)]
struct Book {
    calls: UnboundedSender<Called>,
    refusals: Arc<AtomicU16>,
}

async fn called(State(book): State<Book>, method: Method, headers: HeaderMap, body: Bytes) -> StatusCode {
    let body = serde_json::from_slice(&body).unwrap();
    let _ = book.calls.send(Called { method, headers, body });
    let left = book.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    if left.is_ok() { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::NO_CONTENT }
}

/// The recording of the site: two seconds.
fn recording() -> Vec<u8> {
    wav(1, 16_000, 32_000)
}

impl Site {
    #[expect(clippy::disallowed_methods, reason = "ends with the runtime of its test")]
    async fn start() -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, calls) = unbounded_channel();
        let refusals = Arc::new(AtomicU16::new(0));
        let redirect = |to: String| get(async move || (StatusCode::FOUND, [(LOCATION, to)]));
        let routes = Router::new()
            .route("/a.wav", get(async || recording()))
            .route("/large.wav", get(async || vec![0; 200_001]))
            .route("/none.wav", get(async || ""))
            .route("/within", redirect("/a.wav".to_owned()))
            .route("/loop", redirect("/loop".to_owned()))
            .route("/to", get(async |Query(to): Query<HashMap<String, String>>| Redirect::to(&to["url"])))
            .route("/elsewhere", redirect(format!("http://localhost:{}/a.wav", address.port())))
            .route("/scheme", redirect("file:///etc/passwd".to_owned()))
            .route("/results", any(called))
            .with_state(Book { calls: sender, refusals: refusals.clone() });
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Site { address, calls, refusals }
    }

    fn at(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn call(&mut self) -> Called {
        timeout(PATIENCE, self.calls.recv()).await.expect("a callback comes").expect("the site stands")
    }
}

/// Starts a gateway that uses addresses of these hosts.
async fn stage(hosts: &[String]) -> Stage {
    Stage::with(Setup { options: options(hosts), ..Setup::default() }).await
}

fn options(hosts: &[String]) -> Options {
    Options {
        url_hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
        recordings: RecordingOptions { max_bytes: 200_000, ..RecordingOptions::default() },
        ..Options::default()
    }
}

async fn ask(stage: &Stage, query: &str, kind: &str, body: impl Into<reqwest::Body>) -> Response {
    let request = stage.http.post(url(&stage.server, &format!("/v1/listen?{query}")));
    let request = request.header("Authorization", format!("Token {}", stage.token));
    request.header("Content-Type", kind).body(body).send().await.unwrap()
}

/// Asks for the recording at an address. Returns the status, and the message of a refusal or the transcript.
async fn fetched(stage: &Stage, address: &str) -> (u16, String) {
    let answer = ask(stage, "", "application/json", json!({ "url": address }).to_string()).await;
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    let told = if status == 200 { transcript(&body) } else { &body["err_msg"] };
    (status, told.as_str().unwrap().to_owned())
}

fn transcript(result: &Value) -> &Value {
    &result["results"]["channels"][0]["alternatives"][0]["transcript"]
}

fn escaped(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_at_an_address_has_the_result_of_one_that_is_sent() {
    let site = Site::start().await;
    let stage = stage(&[site.address.to_string()]).await;
    let sent: Value = ask(&stage, "", "audio/wav", recording()).await.json().await.unwrap();
    for path in ["/a.wav", "/within"] {
        let body = json!({ "url": site.at(path) }).to_string();
        let answer = ask(&stage, "", "application/json", body).await;
        assert_eq!(answer.status(), 200, "{path}");
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["results"], sent["results"]);
        for field in ["sha256", "duration", "channels"] {
            assert_eq!(answer["metadata"][field], sent["metadata"][field], "{field}");
        }
    }
    assert_eq!(fetched(&stage, &site.at("/a.wav")).await, (200, "0 1".to_owned()));
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_listed_hosts_are_asked_and_no_private_address_by_a_name() {
    let mut site = Site::start().await;
    let port = site.address.port();
    // The name leads to an address that is not listed with it, and is private.
    let stage_of_name = stage(&[format!("localhost:{port}")]).await;
    let (status, message) = fetched(&stage_of_name, &format!("http://localhost:{port}/a.wav")).await;
    assert!(status == 400 && message.contains("private address"), "{message}");
    stage_of_name.server.stop().await;
    let both = stage(&[format!("localhost:{port}"), "127.0.0.1".to_owned()]).await;
    assert_eq!(fetched(&both, &format!("http://localhost:{port}/a.wav")).await.0, 200);
    both.server.stop().await;

    let stage = stage(&[site.address.to_string()]).await;
    // A site that answers, at a port that is not listed.
    let other = Site::start().await;
    let redirect = format!("/to?url={}", escaped(&other.at("/a.wav")));
    for (status, address, reason) in [
        (400, other.at("/a.wav"), "is not used"),
        (400, "http://127.0.0.1/a.wav".to_owned(), "is not used"),
        (400, format!("http://localhost:{port}/a.wav"), "is not used"),
        (400, "file:///etc/passwd".to_owned(), "begin with http"),
        (400, "a.wav".to_owned(), "begin with http"),
        (400, site.at("/missing.wav"), "answers 404"),
        (400, site.at("/none.wav"), ""),
        (400, site.at("/loop"), "too many"),
        (400, site.at(&redirect), "is not used"),
        (400, site.at("/elsewhere"), "another host"),
        (400, site.at("/scheme"), ""),
        (413, site.at("/large.wav"), ""),
    ] {
        let (told, message) = fetched(&stage, &address).await;
        assert!(told == status && message.contains(reason), "{address}: {told}, {message}");
    }
    let elsewhere = escaped("http://127.0.0.1:1/results");
    for query in [format!("callback={elsewhere}"), format!("callback={}&callback_method=get", escaped("x"))] {
        assert_eq!(ask(&stage, &query, "audio/wav", recording()).await.status(), 400, "{query}");
    }
    stage.server.stop().await;
    assert!(site.calls.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_listed_host_the_refusal_names_the_option() {
    let site = Site::start().await;
    let stage = stage(&[]).await;
    let (status, message) = fetched(&stage, &site.at("/a.wav")).await;
    assert!(status == 400 && message.contains("--url-host"), "{message}");
    let query = format!("callback={}", escaped(&site.at("/results")));
    let refused = ask(&stage, &query, "audio/wav", recording()).await;
    assert_eq!(refused.status(), 400);
    let refused: Value = refused.json().await.unwrap();
    assert!(refused["err_msg"].as_str().unwrap().contains("--url-host"), "{refused}");
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_is_sent_until_it_is_accepted() {
    let mut site = Site::start().await;
    let stage = stage(&[site.address.to_string()]).await;
    site.refusals.store(1, Ordering::SeqCst);
    let address = site.at("/results?a=b").replacen("://", "://ada:secret@", 1);
    let query = format!("callback={}&callback_method=put", escaped(&address));
    let body = json!({ "url": site.at("/a.wav") }).to_string();
    let answer = ask(&stage, &query, "application/json", body).await;
    assert_eq!(answer.status(), 200);
    let id = answer.headers()["dg-request-id"].to_str().unwrap().to_owned();
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({ "request_id": id }));
    let (first, second) = (site.call().await, site.call().await);
    assert_eq!(first.body, second.body);
    assert_eq!(second.method, Method::PUT);
    assert_eq!(transcript(&second.body), "0 1");
    assert_eq!(second.body["metadata"]["request_id"], id);
    assert_eq!(second.headers["dg-request-id"], id);
    assert!(second.headers["dg-token"].to_str().unwrap().starts_with("st_"), "{:?}", second.headers);
    assert_eq!(second.headers["authorization"], "Basic YWRhOnNlY3JldA==");
    // A gateway that stops waits for what it has to send, and nothing is sent twice.
    let query = format!("callback={}", escaped(&site.at("/results")));
    assert_eq!(ask(&stage, &query, "audio/wav", recording()).await.status(), 200);
    stage.server.stop().await;
    let last = site.call().await;
    assert_eq!((last.method, transcript(&last.body)), (Method::POST, &json!("0 1")));
    assert!(site.calls.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_whose_callbacks_are_not_taken_keeps_no_other_from_theirs() {
    let mut site = Site::start().await;
    // It accepts connections, and answers nothing.
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hosts = [site.address, dead.local_addr().unwrap()].map(|address| address.to_string());
    let options = Options { drain: Duration::ZERO, ..options(&hosts) };
    let mut stage = Stage::with(Setup { options, ..Setup::default() }).await;
    let query = format!("callback={}", escaped(&format!("http://{}/results", hosts[1])));
    let mut callbacks = Vec::new();
    let refused = loop {
        let answer = ask(&stage, &query, "audio/wav", recording()).await;
        if answer.status() != StatusCode::OK {
            break answer;
        }
        // The result is on its way, so the recording itself has no place any more.
        callbacks.push(timeout(PATIENCE, dead.accept()).await.expect("the callback comes").unwrap());
    };
    assert_eq!((refused.status(), callbacks.len()), (StatusCode::TOO_MANY_REQUESTS, 32));
    assert!(refused.headers().contains_key("retry-after"));
    // Another project has places, and its callbacks come.
    let authority = stage.server.gateway.authority();
    authority.create_project("other").unwrap();
    let other = authority.create_service_token("other", Terms::default()).unwrap();
    stage.token = other.token.expose_secret().to_owned();
    let query = format!("callback={}", escaped(&site.at("/results")));
    for _ in 0..2 {
        assert_eq!(ask(&stage, &query, "audio/wav", recording()).await.status(), StatusCode::OK);
        assert_eq!(transcript(&site.call().await.body), &json!("0 1"));
    }
    stage.server.stop().await;
}

//! Request IDs in the log, and the log of requests: requests can be found by their IDs, and
//! no line holds a secret.

use humantime::parse_rfc3339;
use reqwest::Method;
use serde_json::{Value, json};
use voxline::auth::TokenProvider;
use voxline::net::Endpoint;
use voxline::transport::{Connect, WebSocketConnector};

use crate::cli::{Place, text};
use crate::support::serving::Serving;
use voxline_fixtures::gateway::http::http_client;
use voxline_fixtures::gateway::secrets::{CANARY, secrets};
use voxline_fixtures::gateway::socket::Socket;

/// Runs one session over WebSocket. The log lines of the session have the ID of its upgrade request.
async fn run_session(endpoint: &Endpoint, token: &str) {
    let tokens = TokenProvider::service(&token.to_owned().into()).unwrap();
    let connector = WebSocketConnector::new(endpoint.clone()).unwrap();
    let mut socket = Socket::on(connector.connect(&tokens.token().await.unwrap(), None).await.unwrap());
    socket.say(&json!({ "type": "start", "sample_rate": 16_000, "partials": false }));
    socket.hear("ready").await;
    socket.audio(&[0; 16_000], 0, 16_000);
    socket.end(16_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_in_json_tells_of_requests_by_their_ids_and_has_no_secret() {
    let place = Place::new();
    let state = ["--state", "state"];
    let created = place.run(&[&["gateway", "project", "create", "calls", "--json"], &state[..]].concat());
    let project: Value = serde_json::from_slice(&created.stdout).unwrap();
    let minted = place.run(&[&["gateway", "service-token", "create", "calls"], &state[..]].concat());
    let token = text(&minted.stdout).trim().to_owned();
    let logging = ["serve", "--listen", "127.0.0.1:0", "--log", "trace", "--log-format", "json"];
    let serving = Serving::start(place.command(&[&logging[..], &state].concat()));

    let endpoint: Endpoint = serving.endpoint.parse().unwrap();
    let http = http_client().unwrap();
    let credentials = |secret: &str| {
        let id = project["client_id"].as_str().unwrap();
        json!({ "client_id": id, "client_secret": secret, "grant_type": "client_credentials" })
    };
    let speech = json!({ "text": CANARY }).to_string();
    let mint = credentials(project["client_secret"].as_str().unwrap());
    let requests = [
        ("wrong-secret", Method::POST, "/auth/oauth/v1/token", credentials(CANARY).to_string(), CANARY, 401),
        ("mint", Method::POST, "/auth/oauth/v1/token", mint.to_string(), CANARY, 200),
        ("wrong-token", Method::POST, "/asr", speech.clone(), CANARY, 401),
        ("no-audio", Method::POST, "/asr", speech.clone(), &token, 400),
        (
            "no-voice",
            Method::GET,
            "/tts?model_name=nobody&text=canary-in-a-coal-mine",
            String::new(),
            &token,
            400,
        ),
        ("no-path", Method::GET, "/no/path?access_token=canary-in-a-coal-mine", String::new(), &token, 404),
    ];
    let mut expected = Vec::new();
    for (id, method, path, body, bearer, status) in requests {
        let request =
            http.request(method.clone(), endpoint.url(path)).bearer_auth(bearer).header("X-Request-Id", id);
        let answer = request.header("Content-Type", "application/json").body(body).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{id}");
        let bytes = answer.bytes().await.unwrap().len();
        let path = path.split('?').next().unwrap();
        expected.push(json!([id, method.as_str(), path, status, bytes]));
    }
    run_session(&endpoint, &token).await;
    drop(http);

    let (status, lines) = serving.stop();
    assert_eq!(status.code(), Some(0));
    for line in &lines {
        assert_eq!(secrets(line.as_bytes()), [""; 0], "{line}");
    }
    let lines: Vec<Value> =
        lines.iter().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    for line in &lines {
        let time = line["timestamp"].as_str().unwrap();
        assert!(parse_rfc3339(time).is_ok() && time.ends_with('Z'), "{line}");
    }
    let told = |target: &str| {
        lines.iter().filter(|line| line["target"].as_str().unwrap() == target).collect::<Vec<_>>()
    };
    let mut requests = told("voxline::access");
    let session = requests.pop().unwrap();
    for line in &requests {
        assert!(
            line["duration_ms"].is_u64() && line["peer"].as_str().unwrap().starts_with("127.0.0.1:"),
            "{line}"
        );
    }
    let requests: Vec<Value> = requests
        .iter()
        .map(|line| json!([line["span"]["id"], line["method"], line["path"], line["status"], line["bytes"]]))
        .collect();
    assert_eq!(requests, expected);

    // Audit lines have the same IDs, although other threads write them.
    let audit: Vec<&Value> = told("voxline::audit").iter().map(|line| &line["span"]["id"]).collect();
    assert!(audit.contains(&&json!("mint")) && audit.contains(&&json!("wrong-secret")), "{audit:?}");
    assert_eq!((&session["path"], &session["status"]), (&json!("/asr_stream/ws"), &json!(101)));
    let of_session: Vec<&str> = lines
        .iter()
        .filter(|line| line["span"]["id"] == session["span"]["id"])
        .map(|line| line["message"].as_str().unwrap())
        .collect();
    assert!(
        of_session.contains(&"session started") && of_session.contains(&"socket ended"),
        "{of_session:?}"
    );
    // Lines without an ID belong to no request.
    let ours = lines.iter().filter(|line| line["target"].as_str().unwrap().starts_with("voxline_gateway"));
    let nameless: Vec<&Value> =
        ours.filter(|line| line["span"]["id"].is_null()).map(|line| &line["message"]).collect();
    assert!(nameless.is_empty(), "{nameless:?}");
    let operation: Vec<Value> =
        told("voxline::operation").iter().map(|line| json!([line["message"], line["closed"]])).collect();
    assert_eq!(operation, [json!(["drain started", null]), json!(["drain finished", 0])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_text_unless_it_is_said_and_keeps_quiet_of_requests_unless_asked() {
    for (filter, is_told) in [(None, false), (Some("warn,voxline::access=info"), true)] {
        let place = Place::new();
        let mut serve = place.command(&["serve", "--listen", "127.0.0.1:0", "--state", "state"]);
        serve.envs(filter.map(|filter| ("VOXLINE_LOG", filter)));
        let serving = Serving::start(serve);
        let asked = http_client()
            .unwrap()
            .get(format!("{}/healthz?q=1", serving.endpoint))
            .header("X-Request-Id", "probe");
        assert_eq!(asked.send().await.unwrap().status().as_u16(), 200);
        let log = serving.stop().1.join("\n");
        assert_eq!(
            log.contains("request{id=probe}: voxline::access: request method=GET path=/healthz status=200"),
            is_told,
            "{log}"
        );
        assert!(!log.contains("q=1"), "{log}");
    }
}

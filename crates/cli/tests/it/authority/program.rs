//! `voxline serve`, whose flags set the operator's policies.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use voxline_gateway::authority::MAX_TOKENS;

use crate::cli::Place;
use voxline_fixtures::gateway::http::{http_client, refusal};

/// The running process, killed when dropped: a process left by a failed test would hold the test's output
/// open.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_flags() {
    let place = Place::new();
    let mut serve = place.command(&["serve", "--listen", "127.0.0.1:0", "--state", "state"]);
    serve.args(["--token-limit", "evict", "--refresh-tokens", "rotate", "--documented-status"]);
    let mut serving =
        Serving(serve.args(["--token-lifetime", "600"]).stdout(Stdio::piped()).spawn().unwrap());
    let mut stdout = BufReader::new(serving.0.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let base = line.trim().strip_prefix("listening on ").expect("it says where").to_owned();
    // The gateway accepts operator commands once it has printed that line.
    let created = place.run(&["gateway", "project", "create", "calls", "--state", "state", "--json"]);
    let client: Value = serde_json::from_slice(&created.stdout).unwrap();

    let http = http_client().unwrap();
    let ask = async |mut body: Value| -> Value {
        body["client_id"] = client["client_id"].clone();
        let answer = http.post(format!("{base}/auth/oauth/v1/token")).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json().await.unwrap()
    };
    let use_token = async |granted: &Value| -> Response {
        let request = http.get(format!("{base}/tts")).bearer_auth(granted["access_token"].as_str().unwrap());
        request.send().await.unwrap()
    };
    let mint = json!({ "client_secret": client["client_secret"], "grant_type": "client_credentials" });
    let first = ask(mint.clone()).await;
    assert_eq!(first["expired_in"], "600");
    // The token is valid; only the text is missing.
    assert_eq!(refusal(use_token(&first).await).await, (StatusCode::BAD_REQUEST, 4051));
    let mut last = Value::Null;
    for _ in 0..MAX_TOKENS {
        last = ask(mint.clone()).await;
    }
    assert_eq!(refusal(use_token(&first).await).await, (StatusCode::BAD_REQUEST, 4048));
    let refresh = json!({ "refresh_token": last["refresh_token"], "grant_type": "refresh_token" });
    assert_ne!(ask(refresh).await["refresh_token"], last["refresh_token"]);
}

//! The audio API of OpenAI: the shape of every answer, what is refused, and the work that a recording is.

mod endings;
mod models;
mod realtime;
mod recordings;
mod refusals;
mod speech;

use reqwest::{Response, StatusCode};
use serde_json::Value;

use super::stage::{Stage, content_type, service_token};
use voxline_fixtures::gateway::http::url;

/// Boundary of the forms.
pub(super) const BOUNDARY: &str = "----a-boundary.7";
const TRANSCRIPTIONS: &str = "/v1/audio/transcriptions";
const TRANSLATIONS: &str = "/v1/audio/translations";
const SPEECH: &str = "/v1/audio/speech";

impl Stage {
    /// Sends a form. Its file comes last, as the SDK of OpenAI has it.
    async fn send(&self, path: &str, fields: &[(&str, &str)], file: &[u8]) -> Response {
        self.send_body(path, form(fields, Some(file))).await
    }

    async fn send_body(&self, path: &str, body: Vec<u8>) -> Response {
        let request = self.http.post(url(&self.server, path)).bearer_auth(&self.token);
        let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
        request.header("Content-Type", content_type).body(body).send().await.unwrap()
    }

    /// Sends a form and returns the JSON of the answer.
    async fn json(&self, path: &str, fields: &[(&str, &str)], file: &[u8]) -> Value {
        let answer = self.send(path, fields, file).await;
        assert_eq!((answer.status(), content_type(&answer)), (StatusCode::OK, "application/json"));
        answer.json().await.unwrap()
    }

    /// Asks for speech.
    async fn speak(&self, body: &Value) -> Response {
        self.http.post(url(&self.server, SPEECH)).bearer_auth(&self.token).json(body).send().await.unwrap()
    }
}

/// Returns a form with these fields, and with a file, which comes last.
pub(super) fn form(fields: &[(&str, &str)], file: Option<&[u8]>) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend(part(name, "", value.as_bytes()));
    }
    if let Some(file) = file {
        body.extend(part("file", "; filename=\"a.mp3\"\r\nContent-Type: audio/mpeg", file));
    }
    body.extend(format!("--{BOUNDARY}--\r\n").into_bytes());
    body
}

/// Returns a part of a form.
fn part(name: &str, more: &str, content: &[u8]) -> Vec<u8> {
    let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{more}\r\n\r\n");
    [head.as_bytes(), content, b"\r\n"].concat()
}

/// Returns the data of each event. The last one is `[DONE]`.
fn events(body: &str) -> Vec<Value> {
    let mut data: Vec<&str> = body
        .split("\n\n")
        .filter(|event| !event.is_empty() && !event.starts_with(':'))
        .map(|event| event.strip_prefix("data: ").expect("an event has data alone"))
        .collect();
    assert_eq!(data.pop(), Some("[DONE]"));
    data.into_iter().map(|data| serde_json::from_str(data).unwrap()).collect()
}

/// Checks the shape of an error, and returns its status, the field that it concerns, and its code.
async fn refusal(answer: Response) -> (u16, Option<String>, Option<String>) {
    let status = answer.status().as_u16();
    assert_eq!(content_type(&answer), "application/json");
    assert_eq!(answer.headers()["x-request-id"].len(), 32);
    assert_eq!(status == 429 || status == 503, answer.headers().contains_key("retry-after"), "{status}");
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    let error = body["error"].as_object().unwrap();
    assert_eq!(error.keys().collect::<Vec<_>>(), ["code", "message", "param", "type"], "{body}");
    assert!(!error["message"].as_str().unwrap().is_empty() && error["type"].is_string(), "{body}");
    let text = |name: &str| error[name].as_str().map(str::to_owned);
    (status, text("param"), text("code"))
}

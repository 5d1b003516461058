//! The audio API of OpenAI: the shape of every answer, what is refused, and the work that a recording is.

mod endings;
mod models;
mod recordings;
mod refusals;
mod speech;

use std::sync::{Arc, Mutex};

use reqwest::{Client, Response, StatusCode};
use secrecy::ExposeSecret;
use serde_json::Value;
use voxline::audio::{FramePos, FrameRange};
use voxline::engine::{
    Capabilities, EngineError, PartialResult, RecognitionRequest, Recognizer, RecognizerStream, Segment, Task,
};
use voxline::transcript::Word;
use voxline_gateway::authority::Terms;

use voxline_fixtures::gateway::http::{http_client, url};
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::voice::Tone;

/// Boundary of the forms.
const BOUNDARY: &str = "----a-boundary.7";
const TRANSCRIPTIONS: &str = "/v1/audio/transcriptions";
const TRANSLATIONS: &str = "/v1/audio/translations";
const SPEECH: &str = "/v1/audio/speech";

/// A recogniser that hears the number of each second, and remembers what it was asked for. A second of digital
/// silence has no words.
#[derive(Default)]
struct Counting {
    requests: Mutex<Vec<RecognitionRequest>>,
}

impl Recognizer for Counting {
    fn name(&self) -> &str {
        "counting"
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.tasks = vec![Task::Transcribe, Task::Translate];
        (capabilities.prompt, capabilities.keywords, capabilities.words) = (true, true, true);
        capabilities
    }

    fn start(&self, request: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
        self.capabilities().check(request)?;
        self.requests.lock().unwrap().push(request.clone());
        Ok(Box::new(CountingStream { pcm: Vec::new(), committed: 0 }))
    }
}

struct CountingStream {
    pcm: Vec<i16>,
    /// Number of frames before those of `pcm`.
    committed: u64,
}

impl CountingStream {
    fn segment(&mut self, frames: usize) -> Segment {
        let pcm: Vec<i16> = self.pcm.drain(..frames).collect();
        let start = FramePos(self.committed);
        self.committed += frames as u64;
        let range = FrameRange::new(start, FramePos(self.committed));
        if pcm.iter().all(|sample| *sample == 0) {
            return Segment::silence(range);
        }
        let text = format!("{}.", start.0 / 16_000);
        let words = vec![Word { range, text: text.clone(), confidence: 0.75 }];
        Segment {
            text,
            language: Some("en".to_owned()),
            confidence: Some(0.75),
            avg_log_probability: Some(-0.25),
            compression_ratio: Some(0.5),
            no_speech_probability: Some(0.125),
            tokens: vec![7, 8],
            words,
            ..Segment::silence(range)
        }
    }
}

impl RecognizerStream for CountingStream {
    fn push(&mut self, pcm: &[i16]) -> Result<Vec<Segment>, EngineError> {
        self.pcm.extend_from_slice(pcm);
        Ok((0..self.pcm.len() / 16_000).map(|_| self.segment(16_000)).collect())
    }

    fn partial(&mut self) -> Result<PartialResult, EngineError> {
        Ok(PartialResult::Nothing)
    }

    fn flush(&mut self) -> Result<Vec<Segment>, EngineError> {
        let rest = self.pcm.len();
        Ok(if rest == 0 { Vec::new() } else { vec![self.segment(rest)] })
    }
}

/// A gateway with a client that has a service token.
struct Stage {
    server: Server,
    http: Client,
    token: String,
    recognizer: Arc<Counting>,
}

impl Stage {
    async fn new() -> Stage {
        Stage::with(Setup::default()).await
    }

    /// Starts a gateway whose voices are tones.
    async fn with(setup: Setup) -> Stage {
        let recognizer = Arc::new(Counting::default());
        let setup = Setup { voices: Tone::voices(), ..setup };
        let server = Server::with(recognizer.clone(), setup).await;
        let token = service_token(&server, Terms::default());
        Stage { server, http: http_client().unwrap(), token, recognizer }
    }

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

fn service_token(server: &Server, terms: Terms) -> String {
    let token = server.gateway.authority().create_service_token("test", terms).unwrap().token;
    token.expose_secret().to_owned()
}

fn content_type(answer: &Response) -> &str {
    answer.headers()["content-type"].to_str().unwrap()
}

/// Returns a form with these fields, and with a file, which comes last.
fn form(fields: &[(&str, &str)], file: Option<&[u8]>) -> Vec<u8> {
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

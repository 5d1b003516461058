//! Conformance of the HTTP API to its reference: every documented request, shape, limit and code, and
//! everything that the public clients send and rely on. Each request is sent twice: by `curl`, and by a
//! client of a few lines that speaks HTTP over a socket. Neither shares code with voxline's own clients.
//! The tests of `authority::documented` and `tasks` are not repeated here.

mod demo;
mod fuzzing;
mod recognition;
mod speech;
mod stream;
mod tokens;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;

use secrecy::ExposeSecret;
use serde_json::Value;
use voxline_gateway::Options;
use voxline_testing::DigestRecognizer;

use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::tokens::minted;
use voxline_fixtures::gateway::voice::Tone;

/// The client that sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Curl,
    Socket,
}

const CLIENTS: [Client; 2] = [Client::Curl, Client::Socket];

/// A request.
#[derive(Clone, Debug)]
struct Request {
    method: &'static str,
    target: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Vec<u8>>,
}

fn get(target: impl Into<String>) -> Request {
    Request { method: "GET", target: target.into(), headers: Vec::new(), body: None }
}

fn post(target: impl Into<String>, body: impl Into<Vec<u8>>) -> Request {
    Request { method: "POST", body: Some(body.into()), ..get(target) }
}

impl Request {
    fn with(mut self, name: &'static str, value: impl Into<String>) -> Request {
        self.headers.push((name, value.into()));
        self
    }

    fn under(self, token: &str) -> Request {
        self.with("Authorization", format!("Bearer {token}"))
    }

    fn typed(self, content_type: &str) -> Request {
        self.with("Content-Type", content_type)
    }
}

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// Headers, with names in lower case.
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    /// Parses an answer from its head and its complete body.
    fn parse(head: &str, body: Vec<u8>) -> Answer {
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        Answer { status, headers: lines.filter_map(header).collect(), body }
    }

    fn header(&self, wanted: &str) -> Option<&str> {
        self.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    }

    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns the JSON of a success.
    fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// Returns status and code of a refusal, which must have a `qid` and a message of one line.
    fn refusal(&self) -> (u16, u64) {
        let body = self.json();
        assert!(is_qid(&body["qid"]), "{body}");
        let message = body["error"]["message"].as_str().unwrap();
        assert!(!message.is_empty() && !message.contains('\n'), "{message}");
        (self.status, body["error"]["code"].as_u64().unwrap())
    }
}

/// Starts a gateway that recognises digests and speaks a tone.
async fn server(options: Options) -> Server {
    let setup = Setup { voices: Tone::voices(), options, ..Setup::default() };
    Server::with(Arc::new(DigestRecognizer::new(16_000)), setup).await
}

/// Returns an access token.
fn token(server: &Server) -> String {
    minted(server).expose_secret().to_owned()
}

fn ask(client: Client, server: &Server, request: &Request) -> Answer {
    match client {
        Client::Curl => ask_by_curl(server, request),
        Client::Socket => ask_by_socket(server, request),
    }
}

/// Sends a request as the documentation does, following redirects.
fn ask_by_curl(server: &Server, request: &Request) -> Answer {
    let directory = tempfile::tempdir().unwrap();
    let [sent, head, body] = ["sent", "head", "body"].map(|name| directory.path().join(name));
    let mut curl = Command::new("curl");
    // The answer counts even if it comes before the whole request is sent.
    curl.args(["-sS", "-L", "--noproxy", "*", "--max-time", "60", "-X", request.method]).arg("-D").arg(&head);
    curl.arg("-o").arg(&body);
    for (name, value) in &request.headers {
        curl.arg("-H").arg(format!("{name}: {value}"));
    }
    if let Some(bytes) = &request.body {
        fs::write(&sent, bytes).unwrap();
        curl.arg("--data-binary").arg(format!("@{}", sent.display()));
    }
    let ran = curl.arg(format!("http://{}{}", server.address, request.target)).output().unwrap();
    assert!(ran.status.success(), "{}: {}", request.target, String::from_utf8_lossy(&ran.stderr));
    let head = fs::read_to_string(&head).unwrap();
    // An interim answer (100) may precede the final one.
    let last = head.trim_end().rsplit("\r\n\r\n").next().unwrap();
    Answer::parse(last, fs::read(&body).unwrap_or_default())
}

fn ask_by_socket(server: &Server, request: &Request) -> Answer {
    let mut socket = TcpStream::connect(server.address).unwrap();
    socket.write_all(&head(request)).unwrap();
    // A refusal may come before the whole request is sent, and can be read nevertheless.
    let _ = socket.write_all(request.body.as_deref().unwrap_or_default());
    read_answer(socket)
}

/// Returns the bytes of a request up to its body.
fn head(request: &Request) -> Vec<u8> {
    let Request { method, target, headers, body } = request;
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: voice\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if let Some(body) = body {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    (head + "\r\n").into_bytes()
}

/// Reads an answer until the connection is closed.
fn read_answer(mut socket: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer has a head");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let answer = Answer::parse(&head, bytes.split_off(end + 4));
    match answer.header("transfer-encoding") {
        Some(coding) => {
            assert_eq!(coding, "chunked");
            Answer { body: unchunked(&answer.body), ..answer }
        }
        None => {
            let length = answer.header("content-length").map(|length| length.parse().unwrap());
            assert_eq!(length, Some(answer.body.len()), "{answer:?}");
            answer
        }
    }
}

/// Decodes a chunked body (RFC 9112, section 7.1), which must be complete.
fn unchunked(mut chunked: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = chunked.windows(2).position(|window| window == b"\r\n").expect("a chunk has a size");
        let size = usize::from_str_radix(std::str::from_utf8(&chunked[..line]).unwrap(), 16).unwrap();
        let chunk = &chunked[line + 2..];
        body.extend_from_slice(&chunk[..size]);
        assert_eq!(&chunk[size..size + 2], b"\r\n");
        if size == 0 {
            return body;
        }
        chunked = &chunk[size + 2..];
    }
}

/// Returns whether the value is 32 hexadecimal digits in lower case: a version 4 UUID without hyphens.
fn is_qid(value: &Value) -> bool {
    let qid = value.as_str().unwrap_or_default();
    is_hex(qid) && qid.len() == 32 && qid.as_bytes()[12] == b'4'
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

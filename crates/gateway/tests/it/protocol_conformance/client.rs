//! A hand-written client of the protocol: HTTP and WebSocket frames on a TCP stream, messages as plain
//! JSON. It shares no code with voxline.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::schema;

/// Longest wait for anything that the rules promise, on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Key of the example in RFC 6455, section 1.3, and its answer.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A response to the upgrade request.
pub(super) struct Answer {
    pub(super) status: u16,
    /// Whole response in lower case, with the body at the end.
    pub(super) text: String,
}

/// Next message or event from a server.
#[derive(Debug)]
pub(super) enum Said {
    Message(Value),
    Close(u16),
    Pong,
    /// The stream ended without a close.
    End,
}

pub(super) struct Client {
    stream: TcpStream,
    /// Bytes that were received and are not read yet.
    unread: Vec<u8>,
}

/// Returns the usual upgrade request, whose headers end with `more`.
pub(super) fn request(path: &str, more: &[String]) -> String {
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
    );
    for line in more {
        request.push_str(line);
        request.push_str("\r\n");
    }
    request + "\r\n"
}

pub(super) fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

pub(super) const PROTOCOL: &str = "Sec-WebSocket-Protocol: voxline.asr.v1";
pub(super) const PATH: &str = "/asr_stream/ws";

impl Client {
    /// Sends a request. If the response is 101, the client is an open socket.
    pub(super) async fn ask(address: SocketAddr, request: &str) -> (Answer, Client) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut client = Client { stream, unread: Vec::new() };
        let head = loop {
            if let Some(end) = client.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break client.take(end + 4);
            }
            assert!(client.more("an answer to the upgrade").await, "the server left without an answer");
        };
        let mut text = String::from_utf8(head).unwrap().to_lowercase();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        if status != 101 {
            let length = text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            while client.unread.len() < length {
                assert!(client.more("the body of a refusal").await);
            }
            text.push_str(&String::from_utf8(client.take(length)).unwrap());
        }
        (Answer { status, text }, client)
    }

    /// Opens a socket.
    pub(super) async fn dial(address: SocketAddr, token: &str) -> Client {
        Client::dial_at(address, PATH, token).await
    }

    pub(super) async fn dial_at(address: SocketAddr, path: &str, token: &str) -> Client {
        let request = request(path, &[bearer(token), PROTOCOL.to_owned()]);
        let (answer, client) = Client::ask(address, &request).await;
        assert_eq!(answer.status, 101, "{}", answer.text);
        assert!(answer.text.contains(&format!("sec-websocket-accept: {}\r\n", ACCEPT.to_lowercase())));
        assert!(answer.text.contains("sec-websocket-protocol: voxline.asr.v1\r\n"), "{}", answer.text);
        assert!(!answer.text.contains("sec-websocket-extensions"), "{}", answer.text);
        client
    }

    /// Opens a socket and starts a session. Returns the client and its `ready`.
    pub(super) async fn start(address: SocketAddr, token: &str, more: Value) -> (Client, Value) {
        let mut client = Client::dial(address, token).await;
        let mut start = json!({ "type": "start", "sample_rate": 16_000 });
        for (name, value) in more.as_object().unwrap() {
            start[name] = value.clone();
        }
        client.say(start).await;
        let ready = client.hear("ready").await;
        (client, ready)
    }

    /// Opens a socket and sends `resume` for the session of that `ready`.
    pub(super) async fn resume(address: SocketAddr, token: &str, ready: &Value, finals_seen: u64) -> Client {
        let mut client = Client::dial(address, token).await;
        let (session, key) = (&ready["session"], &ready["resume_key"]);
        client
            .say(json!({ "type": "resume", "session": session, "resume_key": key, "finals_seen": finals_seen }))
            .await;
        client
    }

    /// Sends a message that fits the schema.
    pub(super) async fn say(&mut self, message: Value) {
        schema::check("client", &message).unwrap();
        self.say_anything(&message.to_string()).await;
    }

    pub(super) async fn say_anything(&mut self, text: &str) {
        self.frame(TEXT, text.as_bytes()).await;
    }

    /// Sends audio from a position on.
    pub(super) async fn audio(&mut self, position: u64, samples: &[i16]) {
        let mut payload = position.to_le_bytes().to_vec();
        payload.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
        self.frame(BINARY, &payload).await;
    }

    pub(super) async fn binary(&mut self, payload: &[u8]) {
        self.frame(BINARY, payload).await;
    }

    pub(super) async fn pong(&mut self) {
        self.frame(PONG, &[]).await;
    }

    pub(super) async fn ping(&mut self) {
        self.frame(PING, b"alive?").await;
    }

    pub(super) async fn close(&mut self, code: u16) {
        self.frame(CLOSE, &code.to_be_bytes()).await;
    }

    /// Sends a frame with the FIN bit set, masked as a client's must be.
    async fn frame(&mut self, opcode: u8, payload: &[u8]) {
        const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            length @ 0..=125 => frame.push(0x80 | length as u8),
            length @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        // A server that has closed takes nothing more, and has sent the reason.
        let _ = self.stream.write_all(&frame).await;
    }

    /// Returns the next message or event from the server. Every message is checked against the schema.
    pub(super) async fn next(&mut self, wanted: &str) -> Said {
        let said = timeout(PATIENCE, self.said(wanted)).await;
        said.unwrap_or_else(|_| panic!("no {wanted} within {PATIENCE:?}"))
    }

    async fn said(&mut self, wanted: &str) -> Said {
        loop {
            // A server that sends no message sends pings all the same.
            let Some((opcode, payload)) = self.next_frame(wanted).await else { return Said::End };
            match opcode {
                TEXT => {
                    let message: Value = serde_json::from_slice(&payload).unwrap();
                    schema::check("server", &message).unwrap();
                    return Said::Message(message);
                }
                CLOSE => {
                    // RFC 6455, section 5.5.1. The server waits for the answer before it ends the stream.
                    self.frame(CLOSE, &payload).await;
                    return Said::Close(u16::from_be_bytes([payload[0], payload[1]]));
                }
                PING => self.frame(PONG, &payload).await,
                PONG => return Said::Pong,
                other => panic!("a frame of the opcode {other} came instead of {wanted}"),
            }
        }
    }

    /// Waits for a ping, and does not answer it.
    pub(super) async fn pinged(&mut self) {
        while !matches!(self.next_frame("a ping").await, Some((PING, _))) {}
    }

    /// Sends a text frame that is not UTF-8.
    pub(super) async fn say_no_text(&mut self) {
        self.frame(TEXT, &[0xff, 0xfe]).await;
    }

    async fn next_frame(&mut self, wanted: &str) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((opcode, head, length)) = frame_at(&self.unread) {
                assert_eq!(self.unread[1] & 0x80, 0, "a server masks nothing");
                assert_eq!(self.unread[0] & 0xf0, 0x80, "whole frames without extensions");
                let frame = self.take(head + length);
                return Some((opcode, frame[head..].to_vec()));
            }
            if !self.more(wanted).await {
                return None;
            }
        }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        self.unread.drain(..count).collect()
    }

    /// Reads more bytes. Returns whether any came.
    async fn more(&mut self, wanted: &str) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.unread)).await;
        // A reset comes after a close that the server did not wait for.
        read.unwrap_or_else(|_| panic!("no {wanted} within {PATIENCE:?}")).unwrap_or(0) > 0
    }

    /// Waits for a message of this type, past all others.
    pub(super) async fn hear(&mut self, kind: &str) -> Value {
        self.hear_all(kind).await.pop().expect("the one waited for")
    }

    /// Returns all messages up to the first of this type.
    pub(super) async fn hear_all(&mut self, kind: &str) -> Vec<Value> {
        let mut heard = Vec::new();
        loop {
            match self.next(kind).await {
                Said::Message(message) => {
                    let last = message["type"] == kind;
                    assert!(last || message["type"] != "error", "{message} instead of {kind}");
                    heard.push(message);
                    if last {
                        return heard;
                    }
                }
                Said::Pong => {}
                other => panic!("{other:?} instead of {kind}"),
            }
        }
    }

    /// Waits until `received` has come to `position`.
    pub(super) async fn acknowledged(&mut self, position: u64) {
        while self.hear("ack").await["received"].as_u64().unwrap() < position {}
    }

    /// Returns the close code, and the code of the error before it.
    pub(super) async fn closed(&mut self) -> (u16, Option<u64>) {
        let mut error = None;
        loop {
            match self.next("close").await {
                Said::Message(message) if message["type"] == "error" => error = message["code"].as_u64(),
                Said::Message(_) | Said::Pong => {}
                Said::Close(code) => return (code, error),
                Said::End => panic!("the server ended the stream without a close"),
            }
        }
    }
}

/// Returns the opcode of the frame that these bytes begin with, the length of its head without a mask, and
/// the length of its payload. Returns `None` while the frame is incomplete.
pub(super) fn frame_at(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (head, length) = match second & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap())),
        length => (2, u64::from(length)),
    };
    let length = usize::try_from(length).unwrap();
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    (bytes.len() >= head + mask + length).then_some((first & 0x0f, head, length))
}

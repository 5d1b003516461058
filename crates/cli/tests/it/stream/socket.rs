//! A client's end of one socket, in JSON and bytes.

use std::time::Duration;

use serde_json::{Value, json};
use voxline::auth::AccessToken;
use voxline::transport::{Connect, Message, Stream, WebSocketConnector, Wire};

use super::{CHUNK, index};
use crate::support::server::Server;
use voxline_fixtures::deadline::within;

/// Longest wait for a message.
const PATIENCE: Duration = Duration::from_secs(30);

/// A final result as the client receives it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Segment {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) text: String,
}

/// The next message or close of a server.
pub(crate) enum Said {
    Message(Value),
    Close(u16, String),
}

/// One WebSocket. It checks the invariants of each message: cursors never decrease, and final results are
/// numbered in order.
pub(crate) struct Socket {
    pub(crate) wire: Wire<Box<dyn Stream>>,
    pub(crate) received: u64,
    pub(crate) final_: u64,
    pub(crate) finals: Vec<Segment>,
    /// Index of the first final result in `finals`.
    first: u64,
}

impl Socket {
    pub(crate) async fn dial(server: &Server, token: &AccessToken) -> Socket {
        Socket::dial_for(server, token, None).await
    }

    async fn dial_for(server: &Server, token: &AccessToken, session: Option<&str>) -> Socket {
        let connector = WebSocketConnector::new(server.endpoint()).unwrap();
        Socket::on(connector.connect(token, session).await.unwrap())
    }

    pub(crate) fn on(peer: <WebSocketConnector as Connect>::Peer) -> Socket {
        Socket { wire: peer.into_wire(), received: 0, final_: 0, finals: Vec::new(), first: 0 }
    }

    /// Opens a socket with a new session. Returns the socket and the `ready` message.
    pub(crate) async fn start(server: &Server, token: &AccessToken) -> (Socket, Value) {
        let mut socket = Socket::dial(server, token).await;
        socket.say(&json!({ "type": "start", "sample_rate": 16_000, "partials": false }));
        let ready = socket.hear("ready").await;
        (socket, ready)
    }

    /// Opens a socket that takes over the session of that `ready`. Returns the socket and its own `ready`
    /// message.
    pub(crate) async fn resume(
        server: &Server,
        token: &AccessToken,
        ready: &Value,
        finals_seen: u64,
    ) -> (Socket, Value) {
        let mut socket = Socket::resuming(server, token, ready, finals_seen).await;
        let ready = socket.hear("ready").await;
        (socket, ready)
    }

    /// Opens a socket that has asked for the session of that `ready`, without waiting for the answer.
    pub(crate) async fn resuming(
        server: &Server,
        token: &AccessToken,
        ready: &Value,
        finals_seen: u64,
    ) -> Socket {
        let mut socket = Socket::dial_for(server, token, ready["session"].as_str()).await;
        socket.first = finals_seen;
        socket.say(&json!({
            "type": "resume",
            "session": ready["session"],
            "resume_key": ready["resume_key"],
            "finals_seen": finals_seen,
        }));
        socket
    }

    /// Returns whether a ping with that payload, sent before, is answered. If not, the socket must be
    /// closed with 4429.
    pub(crate) async fn answers_ping(&mut self, payload: &[u8]) -> bool {
        let answer = async {
            loop {
                match self.wire.next().await.expect("a close comes before the end").unwrap() {
                    Message::Pong(pong) if pong == payload => return true,
                    Message::Close(frame) => {
                        assert_eq!(frame.map(|frame| frame.code), Some(4429));
                        return false;
                    }
                    Message::Text(text) => self.note(&serde_json::from_str(&text).unwrap()),
                    _ => {}
                }
            }
        };
        within(PATIENCE, "a pong or a close", answer).await
    }

    pub(crate) fn say(&mut self, message: &Value) {
        self.wire.send(Message::text(message.to_string()));
    }

    pub(crate) fn gap(&mut self, from: u64, to: u64) {
        self.say(&json!({ "type": "gap", "from": from, "to": to }));
    }

    pub(crate) fn auth(&mut self, token: &str) {
        self.say(&json!({ "type": "auth", "access_token": token }));
    }

    pub(crate) fn finish(&mut self, through: u64) {
        self.say(&json!({ "type": "finish", "through": through }));
    }

    /// Sends one binary frame.
    pub(crate) fn frame(&mut self, start: u64, samples: &[i16]) {
        let mut frame = start.to_le_bytes().to_vec();
        frame.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
        self.wire.send(Message::binary(frame));
    }

    /// Sends `start..end` of `pcm` in chunks of 100 ms.
    pub(crate) fn audio(&mut self, pcm: &[i16], start: u64, end: u64) {
        let mut at = start;
        for chunk in pcm[index(start)..index(end)].chunks(index(CHUNK)) {
            self.frame(at, chunk);
            at += chunk.len() as u64;
        }
    }

    pub(crate) async fn next(&mut self) -> Said {
        self.wait_for("a message of the server").await
    }

    async fn wait_for(&mut self, what: &str) -> Said {
        // Pings don't count: they show only that the server is alive.
        within(PATIENCE, what, self.listen()).await
    }

    async fn listen(&mut self) -> Said {
        loop {
            match self.wire.next().await.expect("a close comes before the end").unwrap() {
                Message::Text(text) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    self.note(&message);
                    return Said::Message(message);
                }
                Message::Close(frame) => {
                    let frame = frame.expect("a close has a code");
                    return Said::Close(frame.code, frame.reason);
                }
                _ => {}
            }
        }
    }

    fn note(&mut self, message: &Value) {
        let number = |field: &str| message[field].as_u64().unwrap();
        match message["type"].as_str().unwrap() {
            "ready" | "ack" => {
                let (received, final_) = (number("received"), number("final"));
                assert!(received >= self.received && final_ >= self.final_, "back to {message}");
                assert!(final_ <= received, "{message}");
                (self.received, self.final_) = (received, final_);
            }
            "final" => {
                assert_eq!(number("index"), self.first + self.finals.len() as u64);
                let text = message["text"].as_str().unwrap().to_owned();
                self.finals.push(Segment { start: number("start"), end: number("end"), text });
            }
            _ => {}
        }
    }

    /// Waits for a message of that type. Other messages are checked.
    pub(crate) async fn hear(&mut self, kind: &str) -> Value {
        loop {
            match self.wait_for(kind).await {
                Said::Message(message) if message["type"] == kind => return message,
                Said::Message(message) => assert_ne!(message["type"], "error", "{message}"),
                Said::Close(code, reason) => panic!("closed with {code} ({reason}) before {kind}"),
            }
        }
    }

    /// Waits until all audio below `position` is acknowledged.
    pub(crate) async fn acknowledged(&mut self, position: u64) {
        while self.received < position {
            self.hear("ack").await;
        }
    }

    /// Waits for the close. Returns its code and reason, and the error message that came before it.
    pub(crate) async fn closed(&mut self) -> (u16, String, Option<Value>) {
        let mut error = None;
        loop {
            match self.wait_for("a close").await {
                Said::Message(message) if message["type"] == "error" => error = Some(message),
                Said::Message(_) => {}
                Said::Close(code, reason) => return (code, reason, error),
            }
        }
    }

    /// Ends the audio, reads the rest and closes.
    pub(crate) async fn end(mut self, through: u64) -> Vec<Segment> {
        self.finish(through);
        let done = self.hear("done").await;
        let finals = self.first + self.finals.len() as u64;
        assert_eq!(done, json!({ "type": "done", "frames": through, "finals": finals }));
        self.wire.close(1000, "").await.unwrap();
        self.finals
    }
}

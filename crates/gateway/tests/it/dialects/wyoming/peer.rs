//! A client's end of the Wyoming protocol.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};

use super::super::peer::PATIENCE;
use voxline_fixtures::deadline::within;
use voxline_fixtures::gateway::server::Server;

/// An event of the server.
#[derive(Debug, PartialEq)]
pub(super) struct Told {
    pub(super) kind: String,
    pub(super) data: Value,
    pub(super) payload: Vec<u8>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(super) struct Peer(BufReader<Box<dyn Stream>>);

impl Peer {
    pub(super) async fn connect(server: &Server) -> Peer {
        Peer::connect_to(server.wyoming.expect("the gateway listens")).await
    }

    pub(super) async fn connect_to(address: SocketAddr) -> Peer {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Peer(BufReader::new(Box::new(socket)))
    }

    pub(super) async fn connect_unix(path: &Path) -> Peer {
        Peer(BufReader::new(Box::new(UnixStream::connect(path).await.unwrap())))
    }

    /// Sends bytes. A server that has closed takes nothing more, and has sent the reason.
    pub(super) async fn raw(&mut self, bytes: &[u8]) -> bool {
        self.0.get_mut().write_all(bytes).await.is_ok() && self.0.get_mut().flush().await.is_ok()
    }

    /// Sends an event as the reference implementation writes it: the data in a block of their own.
    pub(super) async fn say_with(&mut self, kind: &str, data: &Value, payload: &[u8]) {
        let data = data.to_string();
        let mut header = json!({ "type": kind, "version": "1.10.2", "data_length": data.len() });
        if !payload.is_empty() {
            header["payload_length"] = payload.len().into();
        }
        let header = format!("{header}\n");
        self.raw(&[header.as_bytes(), data.as_bytes(), payload].concat()).await;
    }

    pub(super) async fn say(&mut self, kind: &str, data: &Value) {
        self.say_with(kind, data, &[]).await;
    }

    /// Sends an event with its data in the header, as older clients do.
    pub(super) async fn say_in_header(&mut self, kind: &str, data: &Value) {
        let header = json!({ "type": kind, "data": data });
        self.raw(format!("{header}\n").as_bytes()).await;
    }

    /// Sends audio at 16 kHz, in chunks of this many bytes.
    pub(super) async fn audio(&mut self, pcm: &[u8], length: usize) {
        let format = json!({ "rate": 16_000, "width": 2, "channels": 1, "timestamp": null });
        for chunk in pcm.chunks(length) {
            self.say_with("audio-chunk", &format, chunk).await;
        }
    }

    /// Sends a whole utterance at 16 kHz.
    pub(super) async fn utter(&mut self, pcm: &[u8]) {
        self.say("audio-start", &json!({ "rate": 16_000, "width": 2, "channels": 1 })).await;
        self.audio(pcm, 2_048).await;
        self.say("audio-stop", &json!({ "timestamp": 7 })).await;
    }

    /// Closes the client's half of the connection.
    pub(super) async fn leave(&mut self) {
        self.0.get_mut().shutdown().await.unwrap();
    }

    /// Returns the next event, or `None` if the server has closed.
    pub(super) async fn next(&mut self) -> Option<Told> {
        within(PATIENCE, "an event", async {
            let mut line = String::new();
            // A server that closes while the client still writes may reset the connection.
            if self.0.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let header: Value = serde_json::from_str(&line).expect("a header is JSON");
            let length = |field: &str| header[field].as_u64().unwrap_or(0) as usize;
            let mut data = vec![0; length("data_length")];
            let mut payload = vec![0; length("payload_length")];
            self.0.read_exact(&mut data).await.unwrap();
            self.0.read_exact(&mut payload).await.unwrap();
            let data = if data.is_empty() { json!({}) } else { serde_json::from_slice(&data).unwrap() };
            let kind = header["type"].as_str().unwrap().to_owned();
            assert!(header["version"].is_string(), "{header}");
            Some(Told { kind, data, payload })
        })
        .await
    }

    /// Returns the next event, which is of this type, and its data.
    pub(super) async fn hear(&mut self, kind: &str) -> Value {
        let told = self.next().await.unwrap_or_else(|| panic!("the end instead of {kind}"));
        assert_eq!(told.kind, kind, "{told:?}");
        told.data
    }

    /// Returns the events up to the first one of this type.
    pub(super) async fn until(&mut self, kind: &str) -> Vec<Told> {
        let mut events = Vec::new();
        loop {
            let told = self.next().await.unwrap_or_else(|| panic!("the end instead of {kind}: {events:?}"));
            events.push(told);
            if events.last().unwrap().kind == kind {
                return events;
            }
        }
    }

    /// Returns the code of the failure that is told before the end of the connection.
    pub(super) async fn refusal(&mut self) -> String {
        let data = self.until("error").await.pop().unwrap().data;
        assert!(!data["text"].as_str().unwrap().is_empty(), "{data}");
        assert_eq!(self.next().await, None, "a failure ends the connection");
        data["code"].as_str().unwrap().to_owned()
    }
}

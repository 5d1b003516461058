//! A client's end of a WebSocket, of a library that isn't ours.

use std::net::SocketAddr;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Request};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use voxline_fixtures::deadline::within;
use voxline_fixtures::gateway::server::Server;

/// Longest wait for a message, on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A refused upgrade.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

/// Message or end of a server.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    Message(Value),
    Close(u16, String),
    /// The connection ended without a close.
    End,
}

pub(super) struct Peer {
    socket: WebSocketStream<TcpStream>,
    pub(super) headers: HeaderMap,
    /// All audio that has come.
    pub(super) heard: Vec<u8>,
}

impl Peer {
    /// Asks for a socket with these headers.
    pub(super) async fn ask(server: &Server, path: &str, more: &[(&str, &str)]) -> Result<Peer, Refused> {
        Peer::ask_at(server.address, path, more).await
    }

    /// Asks for a socket at an address.
    pub(super) async fn ask_at(
        address: SocketAddr,
        path: &str,
        more: &[(&str, &str)],
    ) -> Result<Peer, Refused> {
        let mut request: Request<()> = format!("ws://{address}{path}").into_client_request().unwrap();
        for (name, value) in more {
            let name: http::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        match within(PATIENCE, "an answer to the upgrade", client_async(request, stream)).await {
            Ok((socket, response)) => {
                Ok(Peer { socket, headers: response.headers().clone(), heard: Vec::new() })
            }
            Err(Error::Http(response)) => {
                let (parts, body) = response.into_parts();
                let body = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or(Value::Null);
                Err(Refused { status: parts.status.as_u16(), headers: parts.headers, body })
            }
            Err(error) => panic!("no answer to the upgrade: {error}"),
        }
    }

    /// Opens a socket with `Authorization: Token`.
    pub(super) async fn open(server: &Server, path: &str, key: &str) -> Peer {
        let opened = Peer::ask(server, path, &[("authorization", &format!("Token {key}"))]).await;
        opened.unwrap_or_else(|refused| panic!("{path}: {refused:?}"))
    }

    pub(super) async fn say(&mut self, message: &Value) {
        self.text(&message.to_string()).await;
    }

    /// Sends a text. A server that has closed takes nothing more, and has sent the reason.
    pub(super) async fn text(&mut self, text: &str) {
        let _ = self.socket.send(Message::text(text)).await;
    }

    pub(super) async fn audio(&mut self, bytes: &[u8]) {
        let _ = self.socket.send(Message::binary(bytes.to_vec())).await;
    }

    /// Sends audio in messages of this length.
    pub(super) async fn audio_in(&mut self, bytes: &[u8], length: usize) {
        for piece in bytes.chunks(length) {
            self.audio(piece).await;
        }
    }

    pub(super) async fn next(&mut self) -> Said {
        within(PATIENCE, "a message or a close", async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return Said::Message(serde_json::from_str(&text).expect("messages are JSON"));
                    }
                    Some(Ok(Message::Close(frame))) => {
                        let frame = frame.expect("a close has a code");
                        // The answer leaves with the next read.
                        let _ = self.socket.flush().await;
                        return Said::Close(frame.code.into(), frame.reason.as_str().to_owned());
                    }
                    Some(Ok(Message::Binary(audio))) => self.heard.extend_from_slice(&audio),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Said::End,
                }
            }
        })
        .await
    }

    /// Returns the next message.
    pub(super) async fn message(&mut self) -> Value {
        match self.next().await {
            Said::Message(message) => message,
            end => panic!("{end:?} instead of a message"),
        }
    }

    /// Returns the messages up to the close, and the close.
    pub(super) async fn rest(&mut self) -> (Vec<Value>, Said) {
        let mut messages = Vec::new();
        loop {
            match self.next().await {
                Said::Message(message) => messages.push(message),
                end => return (messages, end),
            }
        }
    }

    /// Returns the first message of this type.
    pub(super) async fn hear(&mut self, kind: &str) -> Value {
        loop {
            let message = self.message().await;
            if message["type"] == kind {
                return message;
            }
        }
    }
}

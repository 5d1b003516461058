//! Conformance of the gateway to docs/protocol.md, tested by a client written from that document alone.
//! Each test has the number of its rule.
//!
//! To be read in the order of the document: `client`; then `handshake`, `messages`, `opening`, `audio`,
//! `results`, `tokens`, `signs_of_life`, `closes`; then `rules`, which checks that no rule is missed, and
//! `schema` with `traffic`, the form of messages.

mod audio;
mod client;
mod closes;
mod handshake;
mod messages;
mod opening;
mod results;
mod rules;
mod schema;
mod signs_of_life;
mod tokens;
mod traffic;

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::time::timeout;
use voxline::engine::{self, EngineError, PartialResult, RecognitionRequest, Recognizer, RecognizerStream};
use voxline_gateway::Options;
use voxline_gateway::authority::{Budget, Scope, Terms};
use voxline_testing::DigestRecognizer;

use self::client::{Client, PATH, PROTOCOL, Said, bearer, request};
use voxline_fixtures::gateway::server::{Server, Setup};

/// Half a second, the length of the recogniser's segments.
const SEGMENT: u64 = 8_000;

struct Gateway {
    server: Server,
    token: String,
}

async fn gateway() -> Gateway {
    with(Setup::default()).await
}

async fn with(setup: Setup) -> Gateway {
    let server = Server::with(Arc::new(DigestRecognizer::new(8_000)), setup).await;
    let token = minted(&server, "test");
    Gateway { server, token }
}

/// Returns a token of the server's own client, or of a new project with this name.
fn minted(server: &Server, project: &str) -> String {
    let authority = server.gateway.authority();
    let (id, secret) = if project == "test" {
        (server.credentials.client_id.clone(), server.credentials.client_secret.clone())
    } else {
        let client = authority.create_project(project).unwrap();
        (client.client_id, client.client_secret)
    };
    authority.client_credentials(&id, &secret).unwrap().access_token.expose_secret().to_owned()
}

impl Gateway {
    async fn start(&self, more: Value) -> (Client, Value) {
        Client::start(self.server.address, &self.token, more).await
    }

    /// Starts a session with some audio, in which the test is about to break a rule.
    async fn started(&self) -> Client {
        let (mut client, _) = self.start(json!({})).await;
        client.audio(0, &samples(0, 100)).await;
        client.acknowledged(100).await;
        client
    }

    async fn dial(&self) -> Client {
        Client::dial(self.server.address, &self.token).await
    }

    /// Creates a service token with these terms.
    fn granted(&self, terms: Terms) -> String {
        let authority = self.server.gateway.authority();
        authority.create_service_token("test", terms).unwrap().token.expose_secret().to_owned()
    }

    /// Returns the status and text of the response to an upgrade request. Checks that a refusal has a JSON
    /// body.
    async fn refusal(&self, path: &str, more: &[String]) -> (u16, String) {
        let (answer, _) = Client::ask(self.server.address, &request(path, more)).await;
        if answer.status != 101 {
            let body = answer.text.split_once("\r\n\r\n").unwrap().1;
            assert!(serde_json::from_str::<Value>(body).is_ok(), "{}", answer.text);
        }
        (answer.status, answer.text)
    }
}

/// Returns audio in which every half second differs.
fn samples(start: u64, end: u64) -> Vec<i16> {
    (start..end).map(|frame| ((frame * frame / 7 + frame) as u16).cast_signed()).collect()
}

fn number(message: &Value, field: &str) -> u64 {
    message[field].as_u64().unwrap_or_else(|| panic!("no {field} in {message}"))
}

fn protocol() -> String {
    PROTOCOL.to_owned()
}

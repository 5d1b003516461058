//! No secret appears in anything that is written: logs at their loudest, errors, the output of `Debug`.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::duplex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use voxline::audio::FramePos;
use voxline::auth::{
    AccessToken, Credentials, OAuthClient, RefreshToken, TokenGeneration, TokenProvider, TokenSet, Vault,
    VaultKey,
};
use voxline::clock::{Clock, SystemClock};
use voxline::error::chain;
use voxline::net::{Endpoint, HttpClient};
use voxline::protocol::{ClientMessage, Ready, Secret, ServerMessage};
use voxline::session::machine::{ConnectionId, Input};
use voxline::session::{Checkpoint, ServerSession};
use voxline::speech::{SpeechClient, SpeechOptions};
use voxline::transport::{Connect, Message, WebSocketConnector, Wire};
use voxline_cli::config::{Access, SecretSource, Service};
use voxline_gateway::authority::{Granted, NewClient, Scopes, Terms};
use voxline_testing::DigestRecognizer;

use crate::cli::{Place, text};
use voxline_fixtures::gateway::log::{ALL_BUT_FRAMES, FRAMES};
use voxline_fixtures::gateway::secrets::{CANARY, overhear, secrets};
use voxline_fixtures::gateway::server::{Server, endpoint};
use voxline_fixtures::noise;

#[test]
#[expect(clippy::print_stdout, reason = "the figures are what the test is for")]
fn the_loudest_log_has_no_secret() {
    // The tests of this binary that handle secrets in its own process.
    let tests = ["certificates::", "spooling::"];
    let topics = ["tokio_tungstenite", "hyper_util::", "voxline_gateway", "voxline::session"];
    let overheard = overhear(ALL_BUT_FRAMES, &tests, &topics);
    println!("{} lines, {} leaks", overheard.lines, overheard.leaks.len());
    assert_eq!(overheard.heard, [true; 4], "{topics:?}: the log is not what it should be");
    assert_eq!(overheard.leaks, [""; 0]);
}

fn secret() -> SecretString {
    CANARY.to_owned().into()
}

fn access_token() -> AccessToken {
    AccessToken::new(&secret(), TokenGeneration(1)).unwrap()
}

fn credentials() -> Credentials {
    Credentials { client_id: "ID".to_owned(), client_secret: secret() }
}

fn somewhere() -> Endpoint {
    "https://speech.example".parse().unwrap()
}

fn oauth(endpoint: Endpoint) -> OAuthClient {
    OAuthClient::new(HttpClient::new().unwrap(), endpoint, credentials(), Arc::new(SystemClock::new()))
}

/// Asserts that the `Debug` output of a value contains no secret.
#[track_caller]
fn assert_silent(what: &impl Debug) {
    for printed in [format!("{what:?}"), format!("{what:#?}")] {
        assert_eq!(secrets(printed.as_bytes()), [""; 0], "{printed}");
    }
}

#[tokio::test]
async fn nothing_that_holds_a_secret_prints_it() {
    let key = || Secret::from(CANARY.to_owned());
    let tokens = TokenSet {
        access: secret(),
        refresh: Some(RefreshToken(secret())),
        granted: SystemClock::new().moment(),
        lifetime: Duration::from_secs(60),
        scope: None,
    };
    let place = Place::new();
    let vault = Vault::new(&place.path("tokens"), &somewhere(), "ID");
    let mut locked = vault.lock().await.unwrap();
    locked.account.tokens = Some(tokens.clone());
    let locked = locked.save().await.unwrap();
    assert_silent(&locked);
    drop(locked);
    assert_silent(&vault);
    assert_silent(&vault.load().unwrap());
    let mut key_file = [0; 32];
    key_file[..CANARY.len()].copy_from_slice(CANARY.as_bytes());
    assert_silent(&VaultKey::parse(&key_file).unwrap());
    assert_silent(&SecretSource::Given(secret()));
    assert_silent(&tokens);
    assert_silent(&access_token());
    assert_silent(&access_token().bearer());
    assert_silent(&credentials());
    let provider = TokenProvider::oauth(oauth(somewhere()), vault);
    assert_silent(&provider);
    assert_silent(&TokenProvider::service(&secret()).unwrap());
    assert_silent(&SpeechClient::new(HttpClient::new().unwrap(), somewhere(), &provider));
    let access = [Access::ServiceToken(secret()), Access::Client { id: "ID".to_owned(), secret: secret() }];
    for access in access {
        assert_silent(&access);
        assert_silent(&Service::Remote { endpoint: somewhere(), access });
    }
    assert_silent(&NewClient { client_id: "ID".to_owned(), client_secret: secret() });
    assert_silent(&Granted {
        refresh_token: secret(),
        access_token: secret(),
        lifetime: Duration::ZERO,
        scopes: Scopes::all(),
    });

    let server =
        ServerSession { name: "name".to_owned(), resume_key: key(), first_index: 0, endpoints: Vec::new() };
    assert_silent(&server);
    assert_silent(&Checkpoint { server: Some(server), ..Checkpoint::default() });
    assert_silent(&Input::Token(access_token()));
    let resume = ClientMessage::Resume { session: "name".to_owned(), resume_key: key(), finals_seen: 0 };
    assert_silent(&resume);
    assert_silent(&ClientMessage::Auth { access_token: key() });
    let ready = Ready::new(FramePos(0), 0, 0).resumable("name", key(), Duration::ZERO);
    let ready = ServerMessage::Ready(ready);
    assert_silent(&ready);
    assert_silent(&Input::Peer(ConnectionId(0), ready));
    let (near, _far) = duplex(64);
    let mut wire = Wire::client(near).await;
    let message = Message::text(serde_json::to_string(&resume).unwrap());
    assert_silent(&message);
    wire.send(message);
    assert_silent(&wire);
}

/// Accepts one connection, and responds with this status and with a body that repeats the request.
async fn parrot(listener: &TcpListener, status: &str) {
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut heard = vec![0; 4096];
    let length = socket.read(&mut heard).await.unwrap();
    let heard = String::from_utf8_lossy(&heard[..length]).into_owned();
    let body = serde_json::json!({
        "error": { "message": heard, "code": 1 }, "error_description": heard, "access_token": 7,
    });
    let body = body.to_string();
    let answer = format!(
        "HTTP/1.1 {status}\r\nx-told: {CANARY}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(answer.as_bytes()).await.unwrap();
    socket.shutdown().await.unwrap();
}

#[tokio::test]
async fn no_error_repeats_what_it_was_told_in_confidence() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = endpoint(listener.local_addr().unwrap());
    let tokens = TokenProvider::service(&secret()).unwrap();
    let connector = WebSocketConnector::new(endpoint.clone()).unwrap();
    let client = SpeechClient::new(HttpClient::new().unwrap(), endpoint.clone(), &tokens);
    for status in ["200 OK", "400 No", "401 No", "403 No", "429 No", "500 No", "101 Go on"] {
        let client_for_tokens = oauth(endpoint.clone());
        let (asked, ()) = tokio::join!(client_for_tokens.client_credentials(), parrot(&listener, status));
        let asked = asked.unwrap_err();
        assert_silent(&asked);
        assert_silent(&chain(&asked).to_string());
        let (refreshed, ()) = tokio::join!(
            async { client_for_tokens.refresh(&RefreshToken(secret())).await.unwrap_err() },
            parrot(&listener, status)
        );
        assert_silent(&refreshed);
        assert_silent(&chain(&refreshed).to_string());
        let token = access_token();
        let (connected, ()) = tokio::join!(connector.connect(&token, None), parrot(&listener, status));
        let unconnected = connected.err().unwrap();
        assert_silent(&unconnected);
        assert_silent(&chain(&unconnected).to_string());
        let options = SpeechOptions { attempts: 1, ..SpeechOptions::default() };
        let mut speech = client.speak("Hello.", &options);
        let (spoken, ()) = tokio::join!(speech.next(), parrot(&listener, status));
        assert_silent(&speech);
        if let Some(Err(error)) = spoken {
            assert_silent(&error);
            assert_silent(&chain(&error).to_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_keeps_its_secrets_at_its_loudest() {
    let server = Server::start(Arc::new(DigestRecognizer::new(8_000))).await;
    let token = server.gateway.authority().create_service_token("test", Terms::default()).unwrap().token;
    let place = Place::new();
    place.secret("secret", server.credentials.client_secret.expose_secret());
    place.secret("token", token.expose_secret());
    place.secret("wrong", CANARY);
    let pcm: Vec<u8> = noise(32_000).iter().flat_map(|sample| sample.to_le_bytes()).collect();
    place.file("noise.s16le", pcm);
    let (address, id) = (format!("http://{}", server.address), server.credentials.client_id.as_str());
    let transcribe =
        ["transcribe", "noise.s16le", "--raw", "s16le:16000:1", "--patience", "1", "--log", "trace"];
    let with_user = address.replace("://", &format!("://user:{CANARY}@"));
    let recording = format!("{address}/recording.wav?token={CANARY}");
    let by_client = ["--client-id", id, "--client-secret-file", "secret"];
    let runs: [(&[&str], &str, i32); 7] = [
        // The wrong secret comes first: later the vault has a token, which would be used instead.
        (&["--client-id", id, "--client-secret-file", "wrong"], &address, 4),
        (&by_client, &address, 0),
        (&[&by_client[..], &["--spool", "spool"]].concat(), &address, 0),
        (&["--token-file", "token"], &address, 0),
        (&["--token-file", "wrong"], &address, 4),
        (&by_client, &with_user, 2),
        (&[&by_client[..], &[&recording]].concat(), &address, 3),
    ];
    for (arguments, endpoint, code) in runs {
        let output = place.run(&[&transcribe[..], &["--endpoint", endpoint], arguments].concat());
        let said = [&output.stderr[..], &output.stdout].concat();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
        assert_eq!(secrets(&said), [""; 0], "{arguments:?}");
        // The program has no receiver for what is sent to `log`, so no filter can turn the frames on.
        assert!(!text(&said).contains(FRAMES), "{arguments:?}");
    }
    // A program that logs nothing leaks nothing. This line proves that the program did log.
    let output = place.run(&[&transcribe[..], &["--endpoint", &address, "--token-file", "token"]].concat());
    assert!(text(&output.stderr).contains("session ended"), "{}", text(&output.stderr));
    server.stop().await;
}

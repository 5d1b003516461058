//! A browser's opening handshake: the token comes as a subprotocol and is not echoed. The tests read the
//! raw bytes of the answer, so that they see everything that it contains.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use voxline_gateway::Options;
use voxline_gateway::authority::{Scope, Scopes, Terms};
use voxline_testing::DigestRecognizer;

use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::tokens::minted;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Returns the answer to a handshake with these headers.
async fn handshake(server: &Server, headers: &[(&str, &str)]) -> String {
    let mut request = format!(
        "GET /asr_stream/ws HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        server.address
    );
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(format!("{request}\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let reading = async {
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(socket.read_u8().await.unwrap());
        }
        // A refusal has a body with its reason.
        let length = String::from_utf8_lossy(&answer).lines().find_map(|line| {
            line.strip_prefix("content-length: ").and_then(|length| length.parse::<usize>().ok())
        });
        let mut body = vec![0; length.unwrap_or(0)];
        socket.read_exact(&mut body).await.unwrap();
        answer.extend(body);
    };
    timeout(PATIENCE, reading).await.expect("an answer comes");
    String::from_utf8(answer).unwrap()
}

fn offer(token: &str) -> String {
    format!("voxline.asr.v1, voxline.bearer.{token}")
}

async fn server(options: Options) -> Server {
    Server::with(Arc::new(DigestRecognizer::new(8_000)), Setup { options, ..Setup::default() }).await
}

#[tokio::test]
async fn a_browsers_token_opens_a_socket_and_is_not_answered() {
    let server = server(Options::default()).await;
    let token = minted(&server);
    let token = token.expose_secret();
    let orders = [offer(token), format!("voxline.bearer.{token},voxline.asr.v1")];
    for offered in orders {
        let answer = handshake(&server, &[("Sec-WebSocket-Protocol", &offered)]).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(answer.contains("sec-websocket-protocol: voxline.asr.v1\r\n"), "{answer}");
        assert!(!answer.contains("bearer") && !answer.contains(token), "{answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_browser_without_a_good_token_is_refused() {
    let server = server(Options::default()).await;
    let token = minted(&server);
    let token = token.expose_secret();
    let speaks = Terms { scopes: Scopes::from_iter([Scope::Tts]), ..Terms::default() };
    let speaks = server.gateway.authority().create_service_token("test", speaks).unwrap().token;
    let cases = [
        ("HTTP/1.1 401 ", "voxline.asr.v1".to_owned()),
        ("HTTP/1.1 401 ", offer("")),
        ("HTTP/1.1 401 ", offer("nobodys-token")),
        ("HTTP/1.1 403 ", offer(speaks.expose_secret())),
        // The token alone is not a protocol.
        ("HTTP/1.1 400 ", format!("voxline.bearer.{token}")),
    ];
    for (status, offered) in cases {
        let answer = handshake(&server, &[("Sec-WebSocket-Protocol", &offered)]).await;
        assert!(answer.starts_with(status), "{status}: {answer}");
        let token = offered.split("bearer.").nth(1).filter(|token| !token.is_empty());
        assert!(!token.is_some_and(|token| answer.contains(token)), "{answer}");
    }
    // If there is an `Authorization` header, the token in it counts.
    let bad = [("Authorization", "Bearer nobodys-token"), ("Sec-WebSocket-Protocol", &offer(token))];
    assert!(handshake(&server, &bad).await.starts_with("HTTP/1.1 401 "));
    server.stop().await;
}

//! Request IDs in answers.

use std::sync::Arc;

use reqwest::{Method, Response};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use voxline_testing::DigestRecognizer;

use voxline_fixtures::gateway::audio::wav;
use voxline_fixtures::gateway::http::{access_token, http_client, url};
use voxline_fixtures::gateway::server::Server;

#[tokio::test]
async fn every_answer_has_the_id_of_its_request() {
    let server = Server::start(Arc::new(DigestRecognizer::new(16_000))).await;
    let http = http_client().unwrap();
    for (method, path, status) in [
        (Method::GET, "/healthz", 200),
        (Method::HEAD, "/healthz", 200),
        (Method::GET, "/nowhere", 404),
        (Method::DELETE, "/asr", 405),
        (Method::GET, "/tts?text=a", 401),
        (Method::GET, "/asr_stream/ws", 401),
        (Method::POST, "/auth/oauth/v1/token", 400),
    ] {
        let ask =
            |id: &str| http.request(method.clone(), url(&server, path)).header("X-Request-Id", id).send();
        let answer = ask("a.B_c-9").await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["x-request-id"]),
            (status, &"a.B_c-9".parse().unwrap())
        );
        assert_one_id(answer).await;
        // An unusable ID is replaced by one of the gateway's own, as is a missing ID.
        let answer = ask("two words").await.unwrap();
        let ours = answer.headers()["x-request-id"].to_str().unwrap();
        assert!(ours.len() == 32 && ours.bytes().all(|byte| byte.is_ascii_hexdigit()), "{ours}");
        assert_one_id(answer).await;
    }

    // Answers that are computed on other threads have one ID too.
    let token = access_token(&server, &http).await;
    for path in ["/asr", "/asr_stream/create_task"] {
        let request = http.post(url(&server, path)).bearer_auth(&token).body(wav(1, 16_000, 16_000));
        let answer = request.header("X-Request-Id", "one").send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["x-request-id"]),
            (200, &"one".parse().unwrap())
        );
        assert!(assert_one_id(answer).await, "{path}: no qid");
    }

    // The answer to the upgrade has the ID too.
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "GET /asr_stream/ws HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\
         Sec-WebSocket-Protocol: voxline.asr.v1\r\nX-Request-Id: upgraded\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(socket.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains("x-request-id: upgraded\r\n"), "{answer}");
    drop(socket);
    server.stop().await;
}

/// Checks that the ID in an answer's body, if there is one, is the ID of the request. Returns whether the
/// body has an ID.
async fn assert_one_id(answer: Response) -> bool {
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default();
    let qid = body.get("qid");
    assert!(qid.is_none_or(|qid| *qid == id), "{id}: {body}");
    qid.is_some()
}

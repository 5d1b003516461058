//! Addresses that together take all connections of a gateway, and the connections left to others.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use voxline_gateway::{ConnectionOptions, Options};
use voxline_testing::DigestRecognizer;

use crate::trusted_proxy::of_v4;
use voxline_fixtures::deadline::within;
use voxline_fixtures::gateway::audio::wav;
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::socket::Socket;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
const PLACES: usize = 40;
/// A trusted proxy, and the last byte of the first colluding address.
const PROXY: [u8; 4] = [127, 0, 0, 1];
const COLLUDING: u8 = 10;

/// Starts a gateway with timeouts so long that its connections do not end by themselves.
async fn server() -> Server {
    let options = Options {
        connections: ConnectionOptions {
            max: PLACES,
            max_per_address: 30,
            header_timeout: 100 * PATIENCE,
            body_timeout: 100 * PATIENCE,
            trusted_proxies: vec!["127.0.0.1/32".parse().unwrap()],
            ..ConnectionOptions::default()
        },
        ..Options::default()
    };
    Server::with(Arc::new(DigestRecognizer::new(16_000)), Setup { options, ..Setup::default() }).await
}

/// Source of a connection's client address.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// The address that the connection comes from.
    Direct,
    /// The address that a trusted proxy names.
    Proxied,
}

impl Way {
    async fn connect(self, server: &Server, number: u8) -> TcpStream {
        let (from, first) = match self {
            Way::Direct => ([127, 0, 0, number], Vec::new()),
            Way::Proxied => (PROXY, of_v4([192, 0, 2, number])),
        };
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((Ipv4Addr::from(from), 0))).unwrap();
        let mut socket = socket.connect(server.address).await.unwrap();
        // A connection that is closed already can't be written to.
        let _ = socket.write_all(&first).await;
        socket
    }

    /// Returns a connection on which one request was answered and the next has begun, or `None` if the
    /// gateway closes it.
    async fn hold(self, server: &Server, number: u8) -> Option<TcpStream> {
        let mut socket = self.connect(server, number).await;
        let _ = socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\nGET /").await;
        let mut status = [0; 12];
        let answer = within(PATIENCE, "an answer, or the end", socket.read_exact(&mut status)).await;
        (answer.is_ok() && &status == b"HTTP/1.1 200").then_some(socket)
    }
}

/// Starts an upload with a valid token, up to the point where the gateway waits for its body.
async fn upload(way: Way, server: &Server, number: u8, token: &str, recording: &[u8]) -> TcpStream {
    let mut socket = way.connect(server, number).await;
    let head = format!(
        "POST /asr HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\nExpect: 100-continue\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n",
        recording.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut leave = [0; 25];
    within(PATIENCE, "leave to send a recording", socket.read_exact(&mut leave)).await.unwrap();
    assert_eq!(&leave, b"HTTP/1.1 100 Continue\r\n\r\n");
    socket
}

#[tokio::test]
async fn addresses_that_collude_keep_out_nobody_and_end_nothing_under_a_token() {
    for way in [Way::Direct, Way::Proxied] {
        let server = server().await;
        let token = server.tokens().token().await.unwrap();
        let (mut live, _) = Socket::start(&server, &token).await;
        // The upload comes from the address that will have the most connections, and is the first from
        // there.
        let recording = wav(1, 16_000, 16_000);
        let mut uploading = upload(way, &server, COLLUDING, token.expose(), &recording).await;
        let mut crowd = Vec::new();
        for number in COLLUDING..COLLUDING + 5 {
            let before = crowd.len();
            while let Some(socket) = way.hold(&server, number).await {
                crowd.push(socket);
                assert!(crowd.len() - before < PLACES, "{number} is refused nothing");
            }
        }
        assert!(crowd.len() >= PLACES - 2, "{} are there", crowd.len());

        // A newcomer gets as many connections as each of the colluding addresses has, and is served on all
        // of them.
        let mut newcomers = Vec::new();
        while let Some(socket) = way.hold(&server, 99).await {
            newcomers.push(socket);
            assert!(newcomers.len() < PLACES, "it may have everything");
        }
        assert!(newcomers.len() >= 5, "{way:?}: it has {} connections", newcomers.len());

        uploading.write_all(&recording).await.unwrap();
        let mut answer = Vec::new();
        within(PATIENCE, "the answer to an upload", uploading.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        live.audio(&vec![0; 16_000], 0, 16_000);
        live.acknowledged(16_000).await;
        live.end(16_000).await;
        server.stop().await;
    }
}

/// More addresses than places, with one connection each, are not treated as a few addresses that take all
/// places.
#[tokio::test]
async fn as_many_addresses_as_places_keep_out_nobody() {
    let server = server().await;
    let mut crowd = Vec::new();
    for number in COLLUDING..COLLUDING + PLACES as u8 + 5 {
        crowd.push(Way::Direct.hold(&server, number).await.expect("it has none yet"));
    }
    assert!(Way::Direct.hold(&server, 99).await.is_some(), "a newcomer is refused");
    // The last connections are still open, and the first are closed.
    let end = within(PATIENCE, "the end of the longest idle", crowd[0].read_to_end(&mut Vec::new())).await;
    drop(end);
    let last = crowd.last_mut().unwrap();
    last.write_all(b"healthz HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answers = Vec::new();
    within(PATIENCE, "the second answer of the last", last.read_to_end(&mut answers)).await.unwrap();
    assert!(String::from_utf8_lossy(&answers).contains("HTTP/1.1 200"), "it was closed for others");
    server.stop().await;
}

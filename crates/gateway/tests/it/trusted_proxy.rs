//! A gateway behind proxies: the client address that counts, named by headers or by PROXY protocol version
//! 2 (written here from its specification), and that only trusted proxies may name it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, StatusCode};
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use voxline_gateway::authority::Terms;
use voxline_gateway::{ConnectionOptions, Options};
use voxline_testing::{DigestRecognizer, ManualClock};

use voxline_fixtures::gateway::http::http_client_from;
use voxline_fixtures::gateway::server::{Server, Setup};

/// The proxy's address, and one that is not trusted.
const PROXY: [u8; 4] = [127, 0, 0, 1];
const STRANGER: [u8; 4] = [127, 0, 0, 2];
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts a gateway that trusts one proxy. Its clock stands still, so that no failure is forgiven
/// meanwhile.
async fn server(options: Options) -> Server {
    let trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    let clock = Arc::new(ManualClock::new(Duration::from_secs(1_700_000_000)));
    let connections = ConnectionOptions { trusted_proxies, ..options.connections };
    let setup = Setup { options: Options { connections, ..options }, clock, ..Setup::default() };
    Server::with(Arc::new(DigestRecognizer::new(16_000)), setup).await
}

/// Asks for speech. The gateway has no voice, and answers 400 if the token is accepted.
async fn speak(server: &Server, http: &Client, token: &str, fields: &[(&str, &str)]) -> StatusCode {
    let mut request = http.get(format!("http://{}/tts?text=Hello", server.address)).bearer_auth(token);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap().status()
}

#[tokio::test]
async fn a_proxys_clients_are_limited_each_by_its_own_address() {
    let server = server(Options { max_failures: 1, ..Options::default() }).await;
    let (proxy, stranger) = (http_client_from(PROXY), http_client_from(STRANGER));
    for (name, value) in [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.2;proto=https")] {
        let fields = [(name, value)];
        assert_eq!(speak(&server, &proxy, "wrong", &fields).await, StatusCode::UNAUTHORIZED, "{value}");
        assert_eq!(speak(&server, &proxy, "wrong", &fields).await, StatusCode::TOO_MANY_REQUESTS, "{value}");
    }
    // An address that the client wrote before its proxy did does not count.
    let forged = [("x-forwarded-for", "192.0.2.99, 192.0.2.1")];
    assert_eq!(speak(&server, &proxy, "wrong", &forged).await, StatusCode::TOO_MANY_REQUESTS);
    // Headers of a peer that is not a proxy do not count, and its failures are its own.
    let claimed = [("x-forwarded-for", "192.0.2.3"), ("forwarded", "nonsense")];
    assert_eq!(speak(&server, &stranger, "wrong", &claimed).await, StatusCode::UNAUTHORIZED);
    assert_eq!(speak(&server, &stranger, "wrong", &[]).await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(speak(&server, &proxy, "wrong", &claimed[..1]).await, StatusCode::UNAUTHORIZED);
    server.stop().await;
}

#[tokio::test]
async fn the_networks_of_a_token_mean_the_client() {
    let server = server(Options::default()).await;
    let terms = Terms { networks: vec!["192.0.2.0/24".parse().unwrap()], ..Terms::default() };
    let token = server.gateway.authority().create_service_token("test", terms).unwrap().token;
    let token = token.expose_secret();
    let (proxy, stranger) = (http_client_from(PROXY), http_client_from(STRANGER));
    let named = |address| [("x-forwarded-for", address)];
    assert_eq!(speak(&server, &proxy, token, &named("192.0.2.7")).await, StatusCode::BAD_REQUEST);
    assert_eq!(speak(&server, &proxy, token, &named("198.51.100.7")).await, StatusCode::FORBIDDEN);
    assert_eq!(speak(&server, &proxy, token, &[]).await, StatusCode::FORBIDDEN);
    assert_eq!(speak(&server, &stranger, token, &named("192.0.2.7")).await, StatusCode::FORBIDDEN);
    server.stop().await;
}

#[tokio::test]
async fn what_a_proxy_garbles_is_refused() {
    let server = server(Options::default()).await;
    let (proxy, stranger) = (http_client_from(PROXY), http_client_from(STRANGER));
    let two: &[_] = &[("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.2")];
    for fields in [&[("x-forwarded-for", "not an address")], &[("forwarded", "for=\"192.0.2.1")], two] {
        let ask = |http: &Client| {
            let mut request = http.get(format!("http://{}/healthz", server.address));
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            request.send()
        };
        let refused = ask(&proxy).await.unwrap();
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{fields:?}");
        assert!(refused.headers().contains_key("x-request-id"));
        assert_eq!(refused.json::<serde_json::Value>().await.unwrap()["error"]["code"], 400);
        assert_eq!(ask(&stranger).await.unwrap().status(), StatusCode::OK, "{fields:?}");
    }
    server.stop().await;
}

/// Returns a PROXY header (proxy-protocol.txt, section 2.2) from the byte of version and command, the byte
/// of family and protocol, and the bytes after the length.
fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A".to_vec();
    header.extend([command, family]);
    header.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
    header.extend(rest);
    header
}

/// Returns the header for a client over IPv4: source and destination, their ports, and a TLV
/// (PP2_TYPE_NOOP, four bytes).
pub(crate) fn of_v4(source: [u8; 4]) -> Vec<u8> {
    let mut rest = source.to_vec();
    rest.extend([203, 0, 113, 1]);
    rest.extend(56_324_u16.to_be_bytes());
    rest.extend(443_u16.to_be_bytes());
    rest.extend([0x04, 0, 4, 1, 2, 3, 4]);
    header(0x21, 0x11, &rest)
}

/// Returns the header for a client over IPv6.
fn of_v6(last: u8) -> Vec<u8> {
    let mut rest = [0x20, 0x01, 0x0D, 0xB8, 0, last, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].to_vec();
    rest.extend([0; 16]);
    rest.extend([0xDC, 4, 1, 187]);
    header(0x21, 0x21, &rest)
}

async fn connect(from: [u8; 4], server: &Server) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::from(from), 0))).unwrap();
    socket.connect(server.address).await.unwrap()
}

/// Sends a request on a new connection that begins with `beginning`. Returns the status of the answer, or
/// `None` if the connection is closed without one.
async fn ask(from: [u8; 4], server: &Server, beginning: &[u8], fields: &str) -> Option<u16> {
    let mut socket = connect(from, server).await;
    let request = format!(
        "GET /tts?text=Hello HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer wrong\r\n{fields}\r\n"
    );
    // In two pieces, because a header may come byte by byte.
    let (first, second) = beginning.split_at(beginning.len() / 2);
    socket.write_all(first).await.unwrap();
    // A connection that is closed already can't be written to.
    let _ = socket.write_all(&[second, request.as_bytes()].concat()).await;
    status(&mut socket).await
}

async fn status(socket: &mut TcpStream) -> Option<u16> {
    let mut answer = [0; 12];
    let read = timeout(PATIENCE, socket.read_exact(&mut answer)).await.expect("an answer, or the end");
    read.is_ok().then(|| std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap())
}

#[tokio::test]
async fn the_proxy_protocol_names_the_client_of_a_connection() {
    let server = server(Options { max_failures: 1, ..Options::default() }).await;
    for named in [of_v4([192, 0, 2, 1]), of_v6(1)] {
        assert_eq!(ask(PROXY, &server, &named, "").await, Some(401));
        assert_eq!(ask(PROXY, &server, &named, "").await, Some(429));
        // Headers of a client that is not a proxy do not count.
        assert_eq!(ask(PROXY, &server, &named, "X-Forwarded-For: 192.0.2.50\r\n").await, Some(429));
    }
    assert_eq!(ask(PROXY, &server, &of_v4([192, 0, 2, 2]), "").await, Some(401));
    assert_eq!(ask(PROXY, &server, &of_v6(2), "").await, Some(401));
    // One proxy behind another.
    let chained = of_v4([127, 0, 0, 1]);
    assert_eq!(ask(PROXY, &server, &chained, "X-Forwarded-For: 192.0.2.1\r\n").await, Some(429));
    assert_eq!(ask(PROXY, &server, &chained, "X-Forwarded-For: 192.0.2.3\r\n").await, Some(401));
    // For LOCAL, for an unspecified family and for a Unix socket the proxy's own address counts.
    assert_eq!(ask(PROXY, &server, &header(0x20, 0x00, b""), "").await, Some(401));
    for own in [header(0x20, 0x11, &[0; 12]), header(0x21, 0x00, &[7; 300]), header(0x21, 0x31, &[0; 216])] {
        assert_eq!(ask(PROXY, &server, &own, "").await, Some(429));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_bad_proxy_header_closes_the_connection() {
    let server = server(Options { max_failures: 0, ..Options::default() }).await;
    let good = of_v4([192, 0, 2, 1]);
    let with = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        bad
    };
    for bad in [
        with(11, b'X'),
        with(12, 0x11),
        with(12, 0x22),
        with(13, 0x12),
        with(13, 0x41),
        // Too short for the addresses.
        header(0x21, 0x11, &[0; 11]),
        header(0x21, 0x21, &[0; 35]),
        b"\r\nGET / HTTP/1.1\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 203.0.113.1 5 443\r\n".to_vec(),
    ] {
        let answer = ask(PROXY, &server, &bad, "").await;
        assert!(matches!(answer, None | Some(400)), "{bad:x?}: {answer:?}");
    }
    // From any other peer the header is not a valid start of a connection.
    assert!(matches!(ask(STRANGER, &server, &good, "").await, None | Some(400)));
    // The header is optional.
    assert_eq!(ask(PROXY, &server, b"", "").await, Some(401));
    server.stop().await;
}

/// Requests the gateway's health on a connection that begins with `beginning`. Returns the connection if
/// that is answered.
async fn held(from: [u8; 4], server: &Server, beginning: &[u8]) -> Option<TcpStream> {
    let mut socket = connect(from, server).await;
    let request = b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n";
    let _ = socket.write_all(&[beginning, request].concat()).await;
    (status(&mut socket).await? == 200).then_some(socket)
}

#[tokio::test]
async fn connections_count_for_the_client_and_not_for_the_proxy() {
    let server = server(Options {
        connections: ConnectionOptions { max_per_address: 2, ..ConnectionOptions::default() },
        ..Options::default()
    })
    .await;
    let mut open = Vec::new();
    for client in 1..=3 {
        for _ in 0..2 {
            open.push(held(PROXY, &server, &of_v4([192, 0, 2, client])).await.expect("its share is free"));
        }
        assert!(held(PROXY, &server, &of_v4([192, 0, 2, client])).await.is_none(), "one too many");
    }
    for _ in 0..3 {
        open.push(held(PROXY, &server, b"").await.expect("the proxy's own are not limited"));
    }
    open.push(held(STRANGER, &server, b"").await.unwrap());
    open.push(held(STRANGER, &server, b"").await.unwrap());
    assert!(held(STRANGER, &server, b"").await.is_none());
    server.stop().await;
}

#[tokio::test]
async fn two_addresses_do_not_take_all_connections() {
    const PLACES: usize = 40;
    let options = Options {
        connections: ConnectionOptions { max: PLACES, max_per_address: 30, ..ConnectionOptions::default() },
        ..Options::default()
    };
    let server = server(options).await;
    let mut open = Vec::new();
    // The second address gets as many connections as it leaves to the first.
    for (address, most) in [(2, 30), (3, 20)] {
        let before = open.len();
        while let Some(socket) = held([127, 0, 0, address], &server, b"").await {
            open.push(socket);
            assert!(open.len() - before <= most, "{address} has more than {most}");
        }
        assert!(open.len() > before, "{address} has none");
    }
    held([127, 0, 0, 4], &server, b"").await.expect("there is a place for a third");
    server.stop().await;
}

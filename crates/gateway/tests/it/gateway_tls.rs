//! TLS of the gateway itself: requests and sessions over it, files that are refused, and clients
//! that begin a handshake and do not finish it.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use rcgen::KeyPair;
use reqwest::Client;
use secrecy::ExposeSecret;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional, duplex};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::ServerName;
use voxline::auth::{OAuthClient, TokenProvider, Vault};
use voxline::clock::SystemClock;
use voxline::net::HttpClient;
use voxline::session::Settings;
use voxline::transport::WebSocketConnector;
use voxline_gateway::authority::Terms;
use voxline_gateway::{BadTls, ConnectionOptions, Options};
use voxline_testing::DigestRecognizer;

use crate::trusted_proxy::of_v4;
use voxline_fixtures::deadline::within;
use voxline_fixtures::gateway::audio::wav;
use voxline_fixtures::gateway::http::{by_credentials, http_client_over};
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::session::transcribe;
use voxline_fixtures::gateway::tls::{CertificateFiles, localhost};
use voxline_fixtures::noise;

/// Longest wait of these tests.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest time that a handshake may take in these tests.
const DEADLINE: Duration = Duration::from_secs(2);

/// Creates the files of a certificate in a directory that ends with the first value.
fn certificate_files() -> (TempDir, CertificateFiles) {
    let directory = tempfile::tempdir().unwrap();
    let files = CertificateFiles::create(directory.path());
    (directory, files)
}

/// Starts a gateway with this certificate.
async fn server(files: &CertificateFiles, options: Options) -> Server {
    let tls = Some(Arc::new(files.load().unwrap()));
    let setup = Setup { options, tls, ..Setup::default() };
    Server::with(Arc::new(DigestRecognizer::new(8_000)), setup).await
}

fn http(files: &CertificateFiles) -> Client {
    http_client_over(files.client()).unwrap()
}

#[tokio::test]
async fn requests_and_sessions_go_over_tls() {
    let (_directory, files) = certificate_files();
    let server = server(&files, Options::default()).await;
    let (endpoint, http) = (localhost(server.address), http(&files));
    let asked = http.post(endpoint.url("/auth/oauth/v1/token")).json(&by_credentials(&server)).send();
    let answer: Value = asked.await.unwrap().json().await.unwrap();
    let token = answer["access_token"].as_str().unwrap();
    let asr = http.post(endpoint.url("/asr")).bearer_auth(token).body(wav(1, 16_000, 160_000));
    let answer = asr.send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    assert!(answer.text().await.unwrap().contains("\"texts\""));

    let vault = Vault::new(server.vault.path(), &endpoint, &server.credentials.client_id);
    let clock = Arc::new(SystemClock::new());
    let http = HttpClient::trusting(&files.trust()).unwrap();
    let client = OAuthClient::new(http, endpoint.clone(), server.credentials.clone(), clock);
    let connector = WebSocketConnector::trusting(endpoint, &files.trust());
    let settings = Settings::new(16_000).with_seed(0);
    let run = transcribe(&connector, &TokenProvider::oauth(client, vault), settings, &noise(80_000)).await;
    assert_eq!(run.result.unwrap().recognised, 80_000);

    let (mut tls, _) = files.shake_hands(server.address).await;
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    tls.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    // The answer ends with TLS's own end, so that it can't have been truncated.
    tls.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // A client without TLS gets no HTTP answer.
    let mut plain = TcpStream::connect(server.address).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    server.stop().await;
}

#[tokio::test]
async fn handshakes_that_never_end_hold_up_nobody_and_are_cut_off() {
    let (_directory, files) = certificate_files();
    // All connections come from one address, whose share is not what is tested.
    let options = Options {
        connections: ConnectionOptions {
            header_timeout: DEADLINE,
            max: 60,
            max_per_address: 0,
            ..ConnectionOptions::default()
        },
        ..Options::default()
    };
    let server = server(&files, options).await;
    let mut halves = Vec::new();
    for number in 0..59 {
        let mut half = TcpStream::connect(server.address).await.unwrap();
        // Half of the clients begin a record that they do not end; the others send nothing.
        if number % 2 == 0 {
            half.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.unwrap();
        }
        halves.push(half);
    }
    let ask = || async {
        let answer = http(&files).get(localhost(server.address).url("/healthz")).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
    };
    ask().await;
    // Handshakes count as connections: with one more, the next client waits until the first is cut off.
    halves.push(TcpStream::connect(server.address).await.unwrap());
    timeout(PATIENCE, ask()).await.unwrap();
    for mut half in halves {
        let end = timeout(PATIENCE, half.read_to_end(&mut Vec::new())).await;
        assert!(end.is_ok(), "a handshake is waited for without end");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_handshake_does_not_keep_the_gateway_from_stopping() {
    let (_directory, files) = certificate_files();
    let options = Options {
        connections: ConnectionOptions { header_timeout: 100 * PATIENCE, ..ConnectionOptions::default() },
        ..Options::default()
    };
    let server = server(&files, options).await;
    let _half = TcpStream::connect(server.address).await.unwrap();
    http(&files).get(localhost(server.address).url("/healthz")).send().await.unwrap();
    timeout(PATIENCE, server.stop()).await.expect("it waits for a handshake");
}

#[test]
fn files_that_are_no_use_are_told_as_such() {
    let (_directory, files) = certificate_files();
    assert!(files.load().is_ok());
    let certificate = fs::read_to_string(files.path("cert.pem")).unwrap();
    let key = fs::read_to_string(files.path("key.pem")).unwrap();
    let told = |name: &str| {
        let error = files.load().err().expect("they are taken").to_string();
        error
            .split_once(&format!("{name}: "))
            .unwrap_or_else(|| panic!("{error}: not of {name}"))
            .1
            .to_owned()
    };
    for (contents, reason) in [
        ("", "holds no certificate, PEM was expected"),
        (&key, "holds no certificate, PEM was expected"),
        (&certificate[..certificate.len() / 2], "holds a damaged certificate"),
        (&certificate.replace(&certificate[40..60], "AAAAAAAAAAAAAAAAAAAA"), "certificate 1 is damaged"),
        (&" ".repeat(1 << 21), "is larger than 1048576 bytes"),
    ] {
        files.write("cert.pem", contents);
        assert_eq!(told("cert.pem"), reason);
    }
    fs::remove_file(files.path("cert.pem")).unwrap();
    assert!(told("cert.pem").starts_with("No such file"));
    files.write("cert.pem", &certificate);
    for (contents, reason) in [
        (certificate.as_str(), "holds no private key, PEM was expected"),
        (&key[..key.len() / 2], "holds a damaged private key"),
        (&key.replace(&key[40..60], "AAAAAAAAAAAAAAAAAAAA"), "is no private key that serves for TLS"),
    ] {
        files.write_key(contents);
        assert_eq!(told("key.pem"), reason);
    }
    files.write_key(&KeyPair::generate().unwrap().serialize_pem());
    let error = files.load().err().expect("any key is taken");
    assert!(matches!(error, BadTls::Mismatch { .. }), "{error}");
    files.write_key(&key);
    fs::set_permissions(files.path("key.pem"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(told("key.pem"), "can be read by others: run chmod 600 on it");
    assert!(!error.to_string().contains(&key[40..60]));
}

/// Sends a request for speech over TLS, on a connection from `from` that begins with `header`. Returns its
/// status, or an error if no TLS is established. The header and the first bytes of the handshake are sent
/// in one piece.
async fn ask_behind(
    files: &CertificateFiles,
    server: &Server,
    from: [u8; 4],
    header: &[u8],
    token: &str,
) -> std::io::Result<u16> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    let mut tcp = socket.connect(server.address).await.unwrap();
    let (near, mut far) = duplex(64 * 1024);
    let carry = async {
        let mut first = vec![0; 4096];
        let length = far.read(&mut first).await?;
        tcp.write_all(&[header, &first[..length]].concat()).await?;
        copy_bidirectional(&mut far, &mut tcp).await
    };
    let ask = async {
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = files.connector().connect(name, near).await?;
        let request = format!(
            "GET /tts?text=Hello HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Connection: close\r\n\r\n"
        );
        tls.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        tls.read_to_string(&mut answer).await?;
        Ok(answer.split(' ').nth(1).expect("an answer has a status").parse().unwrap())
    };
    let (_, answer) = within(PATIENCE, "an answer, or the end", async { tokio::join!(carry, ask) }).await;
    answer
}

/// The PROXY header precedes TLS, as haproxy (`send-proxy-v2`) and load balancers send it, which do not
/// decrypt.
#[tokio::test]
async fn a_proxy_names_its_client_before_tls_begins() {
    let (_directory, files) = certificate_files();
    let trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    let connections = ConnectionOptions { trusted_proxies, ..ConnectionOptions::default() };
    let server = server(&files, Options { connections, ..Options::default() }).await;
    let terms = Terms { networks: vec!["192.0.2.0/24".parse().unwrap()], ..Terms::default() };
    let token = server.gateway.authority().create_service_token("test", terms).unwrap().token;
    let ask = async |from, header: &[u8]| {
        ask_behind(&files, &server, from, header, token.expose_secret()).await.map_err(|error| error.kind())
    };
    let (proxy, stranger) = ([127, 0, 0, 1], [127, 0, 0, 2]);
    // An accepted token gets 400, because there is no voice.
    assert_eq!(ask(proxy, &of_v4([192, 0, 2, 7])).await, Ok(400));
    assert_eq!(ask(proxy, &of_v4([198, 51, 100, 7])).await, Ok(403));
    // Without a header, the proxy's own address counts.
    assert_eq!(ask(proxy, b"").await, Ok(403));
    // From any other peer the header is not accepted: the first bytes are not TLS.
    assert_eq!(ask(stranger, b"").await, Ok(403));
    let refused = ask(stranger, &of_v4([192, 0, 2, 7])).await;
    assert!(refused.is_err(), "{refused:?}");
    server.stop().await;
}

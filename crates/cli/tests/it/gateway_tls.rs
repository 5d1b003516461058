//! TLS of the gateway itself: requests and sessions over it, certificates replaced at run time, and clients
//! that begin a handshake and do not finish it.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::KeyPair;
use reqwest::Client;
use secrecy::ExposeSecret;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional, duplex};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use voxline::auth::{OAuthClient, TokenProvider, Vault};
use voxline::clock::SystemClock;
use voxline::net::{Endpoint, Trust, http_client_trusting};
use voxline::session::Settings;
use voxline::transport::{Connect, WebSocketConnector};
use voxline_gateway::authority::Terms;
use voxline_gateway::{BadTls, Options, Tls, TlsFiles};
use voxline_support::hex;
use voxline_testing::DigestRecognizer;

use crate::cli::{Place, assert_fails, path, text};
use crate::gateway::{by_credentials, wav};
use crate::session::transcribe;
use crate::stream::socket::Socket;
use crate::support::http::{http_client_over, tls};
use crate::support::server::{Server, Setup};
use crate::support::serving::Serving;
use crate::support::tls::{Authority, named};
use crate::trusted_proxy::of_v4;
use voxline_fixtures::deadline::within;
use voxline_fixtures::noise;

/// Longest wait of these tests.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest time that a handshake may take in these tests.
const DEADLINE: Duration = Duration::from_secs(2);

/// Files of a certificate for localhost and of its key.
struct Files {
    place: Place,
    authority: Authority,
}

impl Files {
    fn new() -> Files {
        let files = Files { place: Place::new(), authority: Authority::new("ours") };
        files.place.file("ca.pem", files.authority.pem());
        files.renew();
        files
    }

    /// Replaces certificate and key by new ones. Returns the certificate.
    fn renew(&self) -> CertificateDer<'static> {
        let (certificate, key) = self.authority.certify(named("localhost"));
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        self.place.file("cert.pem", certificate);
        self.write_key(&key);
        der
    }

    fn write_key(&self, key: &str) {
        let path = self.place.file("key.pem", key);
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn load(&self) -> Result<Tls, BadTls> {
        let [certificates, key] = ["cert.pem", "key.pem"].map(|name| self.place.path(name));
        Tls::load(TlsFiles { certificates, key, key_is_guarded: false })
    }

    fn ca(&self) -> PathBuf {
        self.place.path("ca.pem")
    }

    fn trust(&self) -> Trust {
        Trust::with_file(&self.ca()).unwrap()
    }

    async fn server(&self, options: Options) -> Server {
        let tls = Some(Arc::new(self.load().unwrap()));
        let setup = Setup { options, tls, ..Setup::default() };
        Server::with(Arc::new(DigestRecognizer::new(8_000)), setup).await
    }

    fn http(&self) -> Client {
        http_client_over(self.client()).unwrap()
    }

    /// Returns the TLS configuration of a client that trusts the authority.
    fn client(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem().as_bytes()).unwrap()).unwrap();
        tls(roots)
    }

    /// Returns the TLS connector of such a client, which offers HTTP/2, too.
    fn connector(&self) -> TlsConnector {
        let mut config = self.client();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsConnector::from(Arc::new(config))
    }

    /// Connects to a gateway. Returns the connection and the certificate that the gateway shows.
    async fn shake_hands(&self, address: SocketAddr) -> (TlsStream<TcpStream>, CertificateDer<'static>) {
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = self.connector().connect(name, tcp).await.unwrap();
        let shown = tls.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
        (tls, shown)
    }
}

/// Returns the gateway's endpoint, with the name on its certificate.
fn at(address: SocketAddr) -> Endpoint {
    format!("https://localhost:{}", address.port()).parse().unwrap()
}

#[tokio::test]
async fn requests_and_sessions_go_over_tls() {
    let files = Files::new();
    let server = files.server(Options::default()).await;
    let (endpoint, http) = (at(server.address), files.http());
    let asked = http.post(endpoint.url("/auth/oauth/v1/token")).json(&by_credentials(&server)).send();
    let answer: Value = asked.await.unwrap().json().await.unwrap();
    let token = answer["access_token"].as_str().unwrap();
    let asr = http.post(endpoint.url("/asr")).bearer_auth(token).body(wav(1, 16_000, 160_000));
    let answer = asr.send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    assert!(answer.text().await.unwrap().contains("\"texts\""));

    let vault = Vault::new(server.vault.path(), &endpoint, &server.credentials.client_id);
    let clock = Arc::new(SystemClock::new());
    let http = http_client_trusting(&files.trust()).unwrap();
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
    let files = Files::new();
    // All connections come from one address, whose share is not what is tested.
    let options = Options {
        header_timeout: DEADLINE,
        max_connections: 60,
        max_connections_per_address: 0,
        ..Options::default()
    };
    let server = files.server(options).await;
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
        let answer = files.http().get(at(server.address).url("/healthz")).send().await.unwrap();
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
    let files = Files::new();
    let options = Options { header_timeout: 100 * PATIENCE, ..Options::default() };
    let server = files.server(options).await;
    let _half = TcpStream::connect(server.address).await.unwrap();
    files.http().get(at(server.address).url("/healthz")).send().await.unwrap();
    timeout(PATIENCE, server.stop()).await.expect("it waits for a handshake");
}

#[test]
fn files_that_are_no_use_are_told_as_such() {
    let files = Files::new();
    assert!(files.load().is_ok());
    let place = &files.place;
    let certificate = fs::read_to_string(place.path("cert.pem")).unwrap();
    let key = fs::read_to_string(place.path("key.pem")).unwrap();
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
        place.file("cert.pem", contents);
        assert_eq!(told("cert.pem"), reason);
    }
    fs::remove_file(place.path("cert.pem")).unwrap();
    assert!(told("cert.pem").starts_with("No such file"));
    place.file("cert.pem", &certificate);
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
    fs::set_permissions(place.path("key.pem"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(told("key.pem"), "can be read by others: run chmod 600 on it");
    assert!(!error.to_string().contains(&key[40..60]));
}

/// Sends a request for speech over TLS, on a connection from `from` that begins with `header`. Returns its
/// status, or an error if no TLS is established. The header and the first bytes of the handshake are sent
/// in one piece.
async fn ask_behind(
    files: &Files,
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
    let files = Files::new();
    let trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    let server = files.server(Options { trusted_proxies, ..Options::default() }).await;
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

#[test]
fn the_program_refuses_bad_files_before_it_listens() {
    let files = Files::new();
    let with = |more: &[&str]| {
        files.place.run(&[&["serve", "--listen", "127.0.0.1:0", "--state", "state"], more].concat())
    };
    assert_fails(&with(&["--tls-cert", "missing", "--tls-key", "key.pem"]), 2, &["missing: No such file"]);
    files.write_key(&KeyPair::generate().unwrap().serialize_pem());
    let strange = with(&["--tls-cert", "cert.pem", "--tls-key", "key.pem"]);
    assert_fails(&strange, 2, &["key.pem: is not the key of the certificate cert.pem"]);
    assert_eq!(with(&["--tls-cert", "cert.pem"]).status.code(), Some(2));
    assert!(!files.place.path("state").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_under_a_live_session() {
    let files = Files::new();
    let project = ["gateway", "project", "create", "calls", "--state", "state"];
    assert_eq!(files.place.run(&project).status.code(), Some(0));
    let minted = files.place.run(&["gateway", "service-token", "create", "calls", "--state", "state"]);
    let token = text(&minted.stdout).trim().to_owned();
    let serving = {
        let (cert, key) = (files.place.path("cert.pem"), files.place.path("key.pem"));
        // The events of operation are logged by default.
        let serve = ["serve", "--listen", "127.0.0.1:0", "--state", "state"];
        Serving::start(files.place.command(&[&serve[..], &tls_flags(&cert, &key)].concat()))
    };
    assert!(serving.endpoint.starts_with("https://127.0.0.1:"), "{}", serving.endpoint);
    let address = serving.address();

    let tokens = TokenProvider::service(&token.into()).unwrap();
    let connector = WebSocketConnector::trusting(at(address), &files.trust());
    let mut live = Socket::on(connector.connect(&tokens.token().await.unwrap(), None).await.unwrap());
    live.say(&serde_json::json!({ "type": "start", "sample_rate": 16_000, "partials": false }));
    live.hear("ready").await;
    let silence = vec![0; 64_000];
    live.audio(&silence, 0, 32_000);
    live.acknowledged(32_000).await;

    let (_, before) = files.shake_hands(address).await;
    let renewed = files.renew();
    assert_ne!(before, renewed);
    serving.signal("HUP");
    let line = serving.logged("certificate and key replaced");
    let sha256 = |certificate: &CertificateDer<'_>| hex(&Sha256::digest(certificate));
    assert!(line.contains(&format!("sha256=\"{}\"", sha256(&renewed))), "{line}");
    assert!(line.contains(&format!("replaced=\"{}\"", sha256(&before))), "{line}");
    assert_eq!(files.shake_hands(address).await.1, renewed);
    serving.signal("HUP");
    serving.logged("certificate and key read again: the certificate is the same");
    // Unusable files change nothing but the log.
    files.write_key(&KeyPair::generate().unwrap().serialize_pem());
    serving.signal("HUP");
    let line = serving.logged("certificate and key stay as they were");
    assert!(line.contains("ERROR") && line.contains("is not the key of the certificate"), "{line}");
    assert_eq!(files.shake_hands(address).await.1, renewed);

    live.audio(&silence, 32_000, 64_000);
    live.acknowledged(64_000).await;
    live.end(64_000).await;
    let (status, log) = serving.stop();
    assert_eq!(status.code(), Some(0));
    let told = |words: &str| log.iter().filter(|line| line.contains(words)).count();
    assert_eq!((told("drain began"), told("drain ended")), (1, 1), "{log:#?}");
}

fn tls_flags<'a>(cert: &'a Path, key: &'a Path) -> [&'a str; 4] {
    ["--tls-cert", path(cert), "--tls-key", path(key)]
}

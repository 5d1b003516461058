//! A token is sent only to a service that has a valid certificate for its own name.

use std::io;
use std::sync::Arc;

use futures::StreamExt;
use rcgen::{BasicConstraints, IsCa, date_time_ymd};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use voxline::auth::{AuthError, Credentials, OAuthClient, TokenProvider, Vault};
use voxline::clock::SystemClock;
use voxline::error::chain;
use voxline::net::{Endpoint, HttpClient, TlsError, Trust};
use voxline::recovery::Recovery;
use voxline::session::Settings;
use voxline::speech::{SpeechClient, SpeechError, SpeechOptions};
use voxline::transport::{Connect, WebSocketConnector};
use voxline_gateway::authority::Terms;
use voxline_testing::DigestRecognizer;

use crate::cli::{Place, assert_fails, path, text};
use voxline_fixtures::gateway::server::{Server, endpoint};
use voxline_fixtures::gateway::session::transcribe;
use voxline_fixtures::gateway::tls::{Authority, Front, named, self_signed};
use voxline_fixtures::noise;

/// Secret that must not reach a wrong server.
const CANARY: &str = "canary-in-a-coal-mine";

/// The clients that send a secret to a service.
struct Clients {
    endpoint: Endpoint,
    oauth: OAuthClient,
    http: HttpClient,
    tokens: TokenProvider,
    connector: WebSocketConnector,
}

impl Clients {
    fn of(endpoint: Endpoint, trust: &Trust) -> Clients {
        let http = HttpClient::trusting(trust).unwrap();
        let credentials = Credentials { client_id: "ID".into(), client_secret: CANARY.to_owned().into() };
        Clients {
            oauth: OAuthClient::new(
                http.clone(),
                endpoint.clone(),
                credentials,
                Arc::new(SystemClock::new()),
            ),
            http,
            tokens: TokenProvider::service(&CANARY.to_owned().into()).unwrap(),
            connector: WebSocketConnector::trusting(endpoint.clone(), trust),
            endpoint,
        }
    }

    /// Requests an access token. Returns the outcome, as the methods below do.
    async fn ask(&self) -> Result<(), AuthError> {
        self.oauth.client_credentials().await.map(drop)
    }

    async fn speak(&self) -> Result<(), SpeechError> {
        let client = SpeechClient::new(self.http.clone(), self.endpoint.clone(), &self.tokens);
        // The servers of these tests answer once.
        let options = SpeechOptions { attempts: 1, ..SpeechOptions::default() };
        client.speak("Hello.", &options).next().await.map_or(Ok(()), |first| first.map(drop))
    }

    async fn connect(&self) -> Result<(), voxline::recovery::Failure> {
        let token = self.tokens.token().await.unwrap();
        self.connector.connect(&token, None).await.map(drop)
    }
}

/// Reads the head of one request, and answers nothing.
async fn head(mut socket: impl AsyncRead + Unpin) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") && socket.read_buf(&mut head).await? > 0 {}
    Ok(String::from_utf8(head).unwrap())
}

/// Accepts the next connection and returns the request head that arrives through TLS.
async fn hear(listener: &TcpListener, tls: &TlsAcceptor) -> io::Result<String> {
    let (tcp, _) = listener.accept().await?;
    head(tls.accept(tcp).await?).await
}

/// Binds a listener. Returns it with its endpoint by name.
async fn listen() -> (TcpListener, Endpoint) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, format!("https://localhost:{port}").parse().unwrap())
}

/// Lets every client call a server with this certificate. Each must refuse the certificate for this reason,
/// and send nothing.
async fn assert_refused(tls: TlsAcceptor, trust: &Trust, reason: &str) {
    let (listener, endpoint) = listen().await;
    let clients = Clients::of(endpoint.clone(), trust);
    let (asked, heard) = tokio::join!(clients.ask(), hear(&listener, &tls));
    assert!(heard.is_err(), "{reason}: the token endpoint was told {heard:?}");
    let error = asked.unwrap_err();
    assert_eq!(error.recovery(), Recovery::Retry);
    assert_eq!(chain(&error).to_string(), format!("request to token endpoint {endpoint} failed: {reason}"));

    let (spoken, heard) = tokio::join!(clients.speak(), hear(&listener, &tls));
    assert!(heard.is_err(), "{reason}: the voice was told {heard:?}");
    assert_eq!(chain(&spoken.unwrap_err()).to_string(), format!("no speech from {endpoint}: {reason}"));

    let (connected, heard) = tokio::join!(clients.connect(), hear(&listener, &tls));
    assert!(heard.is_err(), "{reason}: the stream was told {heard:?}");
    assert_eq!(chain(&connected.unwrap_err()).to_string(), format!("cannot reach {endpoint}: {reason}"));
}

fn trust(authority: &Authority) -> Trust {
    let place = Place::new();
    Trust::with_file(&place.file("ca.pem", authority.pem())).unwrap()
}

#[tokio::test]
async fn a_bad_certificate_is_refused_before_a_token_is_sent() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let trust = trust(&ours);

    let other = ours.server(named("speech.example"));
    assert_refused(other, &trust, "certificate is for another host").await;
    let mut expired = named("localhost");
    expired.not_after = date_time_ymd(2000, 1, 1);
    assert_refused(ours.server(expired), &trust, "certificate has expired").await;
    let mut early = named("localhost");
    early.not_before = date_time_ymd(4000, 1, 1);
    let reason = "certificate is not valid yet, or this machine's clock is wrong";
    assert_refused(ours.server(early), &trust, reason).await;
    let unknown = "certificate is from an unknown issuer";
    assert_refused(theirs.server(named("localhost")), &trust, unknown).await;
    assert_refused(self_signed(&named("localhost")), &trust, unknown).await;
    // A certificate that claims to be its own authority.
    let mut proud = named("localhost");
    proud.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    assert_refused(
        self_signed(&proud),
        &trust,
        "certificate is a certificate authority's own (CA:TRUE), not a server's: the server needs one with CA:FALSE, \
         signed by that authority or by itself",
    )
    .await;
    // A certificate of our authority is refused by a client that does not trust that authority.
    assert_refused(ours.server(named("localhost")), &Trust::system().unwrap(), unknown).await;
}

#[tokio::test]
async fn a_good_certificate_is_shown_the_token() {
    let ours = Authority::new("ours");
    let (listener, endpoint) = listen().await;
    let (clients, tls) = (Clients::of(endpoint, &trust(&ours)), ours.server(named("localhost")));
    let bearer = format!("Bearer {CANARY}");
    let (_, heard) = tokio::join!(clients.ask(), hear(&listener, &tls));
    assert!(heard.unwrap().starts_with("POST /auth/oauth/v1/token HTTP/1.1\r\n"));
    let (_, heard) = tokio::join!(clients.speak(), hear(&listener, &tls));
    assert!(heard.unwrap().contains(&bearer));
    let (_, heard) = tokio::join!(clients.connect(), hear(&listener, &tls));
    assert!(heard.unwrap().contains(&bearer));
}

#[tokio::test]
async fn a_session_runs_over_tls() {
    let server = Server::start(Arc::new(DigestRecognizer::new(8_000))).await;
    let ours = Authority::new("ours");
    let front = Front::start(ours.server(named("localhost")), server.address).await;
    let endpoint: Endpoint = format!("https://localhost:{}", front.port).parse().unwrap();
    let trust = trust(&ours);
    let vault = Vault::new(server.vault.path(), &endpoint, &server.credentials.client_id);
    let client = OAuthClient::new(
        HttpClient::trusting(&trust).unwrap(),
        endpoint.clone(),
        server.credentials.clone(),
        Arc::new(SystemClock::new()),
    );
    let tokens = TokenProvider::oauth(client, vault);
    let connector = WebSocketConnector::trusting(endpoint, &trust);
    let run = transcribe(&connector, &tokens, Settings::new(16_000).with_seed(0), &noise(80_000)).await;
    assert_eq!(run.result.unwrap().recognised, 80_000);
    drop(front);
    server.stop().await;
}

#[test]
fn a_file_of_certificates_that_is_no_use_is_told_as_such() {
    let place = Place::new();
    let pem = Authority::new("ours").pem();
    let told = |name: &str, contents: &str| {
        let error = Trust::with_file(&place.file(name, contents)).unwrap_err();
        assert!(matches!(error, TlsError::Certificates { .. }), "{error}");
        error.to_string().split_once(&format!("{name}: ")).expect("the file is named").1.to_owned()
    };
    assert_eq!(told("empty", ""), "holds no certificate, PEM was expected");
    assert_eq!(told("text", "no certificate at all"), "holds no certificate, PEM was expected");
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    assert_eq!(told("key", &key), "holds no certificate, PEM was expected");
    // The second certificate is cut in the middle.
    assert_eq!(told("cut", &format!("{pem}{}", &pem[..pem.len() / 2])), "certificate 2 is damaged");
    let inside = pem.replace(&pem[40..60], "AAAAAAAAAAAAAAAAAAAA");
    assert_eq!(told("changed", &inside), "certificate 1 is damaged");
    assert_eq!(told("large", &" ".repeat(1 << 21)), "is larger than 1048576 bytes");
    let missing = Trust::with_file(&place.path("missing")).unwrap_err();
    assert!(matches!(missing, TlsError::Read { .. }), "{missing}");
    assert!(Trust::with_file(&place.file("good", format!("ours:\n{pem}\n{pem}"))).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_trusts_whom_it_is_told_to() {
    let server = Server::start(Arc::new(DigestRecognizer::new(8_000))).await;
    let ours = Authority::new("ours");
    let front = Front::start(ours.server(named("localhost")), server.address).await;
    let token = server.gateway.authority().create_service_token("test", Terms::default()).unwrap().token;
    let (place, address) = (Place::new(), format!("https://localhost:{}", front.port));
    place.secret("token", secrecy::ExposeSecret::expose_secret(&token));
    place.file("silence.s16le", vec![0; 32_000]);
    let ca = place.file("ca.pem", ours.pem());
    let command = ["transcribe", "silence.s16le", "--raw", "s16le:16000:1", "--patience", "1"];
    let at = ["--endpoint", &address, "--token-file", "token"];
    let run = |more: &[&str]| place.run(&[&command[..], &at, more].concat());

    let trusting = run(&["--ca-file", path(&ca)]);
    assert_eq!(trusting.status.code(), Some(0), "{}", text(&trusting.stderr));
    // The environment and the configuration file set it as well.
    let mut by_environment = place.command(&[&command[..], &at].concat());
    let by_environment = by_environment.env("VOXLINE_CA_FILE", &ca).output().unwrap();
    assert_eq!(by_environment.status.code(), Some(0), "{}", text(&by_environment.stderr));
    place.file("voxline.toml", format!("ca_file = {:?}", path(&ca)));
    let by_file = run(&["--config", "voxline.toml"]);
    assert_eq!(by_file.status.code(), Some(0), "{}", text(&by_file.stderr));

    let unknown = format!("cannot reach {address}: certificate is from an unknown issuer");
    assert_fails(&run(&[]), 5, &[&unknown]);
    assert_fails(
        &run(&["--ca-file", "missing.pem"]),
        2,
        &["certificates missing.pem: cannot be read: No such file"],
    );
    place.file("empty.pem", "");
    assert_fails(&run(&["--ca-file", "empty.pem"]), 2, &["certificates empty.pem: holds no certificate"]);
    drop(front);
    server.stop().await;
}

/// Answers one request with a redirect to `location`. Returns the request.
async fn redirect(mut socket: impl AsyncRead + AsyncWrite + Unpin, location: &str) -> String {
    let request = head(&mut socket).await.unwrap();
    let answer = format!(
        "HTTP/1.1 307 Over There\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(answer.as_bytes()).await.unwrap();
    socket.shutdown().await.unwrap();
    request
}

/// Returns whether a client has connected. A client that has its answer makes no further connections.
fn was_called(listener: &std::net::TcpListener) -> bool {
    listener.set_nonblocking(true).unwrap();
    listener.accept().is_ok()
}

#[tokio::test]
async fn a_token_is_not_sent_on_to_another_origin() {
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let location = format!("http://{}/tts", elsewhere.local_addr().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let clients = Clients::of(endpoint(listener.local_addr().unwrap()), &Trust::system().unwrap());
    let redirecting = async || redirect(listener.accept().await.unwrap().0, &location).await;
    let (asked, _) = tokio::join!(clients.ask(), redirecting());
    assert!(matches!(asked, Err(AuthError::Refused { status: 307, .. })), "{asked:?}");
    let (spoken, _) = tokio::join!(clients.speak(), redirecting());
    assert!(matches!(spoken, Err(SpeechError::Refused { status: 307, .. })), "{spoken:?}");
    let (connected, _) = tokio::join!(clients.connect(), redirecting());
    assert_eq!(connected.unwrap_err().recovery, Recovery::Fatal);
    assert!(!was_called(&elsewhere));

    // A redirect from https to http is not followed either, whatever the host.
    let (ours, (listener, endpoint)) = (Authority::new("ours"), listen().await);
    let (clients, tls) = (Clients::of(endpoint, &trust(&ours)), ours.server(named("localhost")));
    let downgrade = location.replace("127.0.0.1", "localhost");
    let redirecting = async || {
        let socket = tls.accept(listener.accept().await.unwrap().0).await.unwrap();
        redirect(socket, &downgrade).await
    };
    let (asked, _) = tokio::join!(clients.ask(), redirecting());
    assert!(matches!(asked, Err(AuthError::Refused { status: 307, .. })), "{asked:?}");
    let (spoken, _) = tokio::join!(clients.speak(), redirecting());
    assert!(matches!(spoken, Err(SpeechError::Refused { status: 307, .. })), "{spoken:?}");
    assert!(!was_called(&elsewhere));
}

#[tokio::test]
async fn a_token_is_sent_on_within_its_origin() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let clients = Clients::of(endpoint(listener.local_addr().unwrap()), &Trust::system().unwrap());
    let answering = async {
        redirect(listener.accept().await.unwrap().0, "/elsewhere/tts").await;
        head(listener.accept().await.unwrap().0).await.unwrap()
    };
    let (_, request) = tokio::join!(clients.speak(), answering);
    assert!(request.starts_with("POST /elsewhere/tts HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("Bearer {CANARY}")), "{request}");
}

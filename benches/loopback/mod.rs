//! A gateway on a loopback port with the null recogniser, and a client of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use http::HeaderValue;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_util::sync::CancellationToken;
use voxline::audio::{AudioChunk, Feed};
use voxline::auth::{Credentials, OAuthClient, TokenProvider, Vault};
use voxline::clock::SystemClock;
use voxline::engine::Voices;
use voxline::net::{Endpoint, HttpClient};
use voxline::protocol::{self, ServerMessage};
use voxline::session::{Ledger, Session, Settings};
use voxline::transport::WebSocketConnector;
use voxline_gateway::authority::{Authority, NewClient};
use voxline_gateway::{Engines, Gateway, Options, serve};
use voxline_testing::NullRecognizer;

/// Sample rate of the session stream, in frames per second.
pub(crate) const SAMPLE_RATE: u32 = 16_000;

/// 5 s: about as often as a talker pauses.
const SEGMENT: u64 = 5 * SAMPLE_RATE as u64;

/// A gateway, on a thread of its own as it would be in a process of its own, and the parts that a client of
/// it needs.
pub(crate) struct Loopback {
    runtime: Runtime,
    address: SocketAddr,
    connector: WebSocketConnector,
    tokens: TokenProvider,
    stop: CancellationToken,
    gateway: Option<thread::JoinHandle<()>>,
    _vault: tempfile::TempDir,
}

impl Loopback {
    /// Starts the gateway.
    pub(crate) fn start() -> Loopback {
        let clock = Arc::new(SystemClock::new());
        let authority = Authority::in_memory(Duration::from_secs(24 * 3600), clock.clone())
            .expect("a database in memory cannot fail");
        let NewClient { client_id, client_secret } =
            authority.create_project("bench").expect("the authority is empty");
        let engines =
            Engines { recognizer: Some(Arc::new(NullRecognizer::new(SEGMENT))), voices: Voices::default() };
        let gateway = Arc::new(Gateway::new(authority, engines, Options::default()));

        let its_runtime = runtime();
        let listener =
            its_runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let gateway = thread::spawn(move || {
            its_runtime.block_on(serve(listener, gateway, stopped)).expect("the gateway goes on until told");
        });

        let endpoint: Endpoint = format!("http://{address}").parse().expect("an address is an endpoint");
        let vault_dir = tempfile::tempdir().expect("a temporary directory");
        let vault = Vault::new(vault_dir.path(), &endpoint, &client_id);
        let client = OAuthClient::new(
            HttpClient::new().expect("TLS can be set up"),
            endpoint.clone(),
            Credentials { client_id, client_secret },
            clock,
        );
        Loopback {
            runtime: runtime(),
            address,
            connector: WebSocketConnector::new(endpoint).expect("TLS can be set up"),
            tokens: TokenProvider::oauth(client, vault),
            stop,
            gateway: Some(gateway),
            _vault: vault_dir,
        }
    }

    /// Runs one session over the audio in the channel, from the upgrade to the close, with all results
    /// received.
    pub(crate) fn session(&self, audio: mpsc::Receiver<Feed>) -> Ledger {
        let (events, mut heard) = mpsc::channel(16);
        let run = Session::new(&self.connector, &self.tokens, Settings::new(SAMPLE_RATE).with_seed(0))
            .run(audio, events);
        let listen = async { while heard.recv().await.is_some() {} };
        let (ended, ()) = self.runtime.block_on(async { tokio::join!(run, listen) });
        let ledger = ended.into_result().expect("nothing disturbs a session on loopback");
        assert_eq!((ledger.accepted, ledger.reconnects), (ledger.recognised, 0));
        ledger
    }

    /// Sends the same frames without a session: no ledger, no replay buffer, nothing kept. It keeps to the
    /// gateway's window, as every client must. Returns the number of frames that finals covered.
    #[allow(dead_code, reason = "not every benchmark compares")]
    pub(crate) fn bare(&self, chunks: impl Iterator<Item = AudioChunk>) -> u64 {
        self.runtime.block_on(async {
            let token = self.tokens.token().await.expect("the gateway grants one");
            let url = format!("ws://{}{}", self.address, protocol::PATH);
            let mut request = url.into_client_request().expect("an address is one");
            let headers = request.headers_mut();
            headers.insert("sec-websocket-protocol", HeaderValue::from_static(protocol::SUBPROTOCOL));
            headers.insert("authorization", token.bearer());
            let stream = TcpStream::connect(self.address).await.expect("it listens");
            stream.set_nodelay(true).expect("it is TCP");
            // Those of a session's socket.
            let limits = WebSocketConfig::default().read_buffer_size(16 * 1024).write_buffer_size(16 * 1024);
            let (mut socket, _) =
                client_async_with_config(request, stream, Some(limits)).await.expect("it upgrades");
            let start = format!(r#"{{"type":"start","sample_rate":{SAMPLE_RATE}}}"#);
            socket.send(Message::text(start)).await.expect("it listens");
            let (mut sent, mut received, mut window, mut covered) = (0, 0, 0, 0);
            let mut chunks = chunks.peekable();
            let mut finished = false;
            loop {
                while let Some(chunk) = chunks.next_if(|chunk| chunk.range().end.0 <= received + window) {
                    sent = chunk.range().end.0;
                    socket.feed(Message::binary(protocol::encode_audio(&chunk))).await.expect("it listens");
                }
                if chunks.peek().is_none() && !std::mem::replace(&mut finished, true) {
                    let finish = format!(r#"{{"type":"finish","through":{sent}}}"#);
                    socket.feed(Message::text(finish)).await.expect("it listens");
                }
                socket.flush().await.expect("it listens");
                let Some(Ok(Message::Text(text))) = socket.next().await else { continue };
                match serde_json::from_str(&text).expect("a message of the protocol") {
                    ServerMessage::Ready(ready) => window = ready.window_frames,
                    ServerMessage::Ack { received: position, .. } => received = position.0,
                    ServerMessage::Final(segment) => covered += segment.end - segment.start,
                    ServerMessage::Done { .. } => break,
                    _ => {}
                }
            }
            socket.close(None).await.expect("it listens");
            while socket.next().await.is_some() {}
            covered
        })
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(gateway) = self.gateway.take() {
            gateway.join().expect("the gateway's thread ends well");
        }
    }
}

/// One thread for each side: a session is one task, and otherwise the choices of a scheduler would be
/// measured too.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime on this thread")
}

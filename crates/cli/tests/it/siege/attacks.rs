//! The attacks, each written as raw bytes without any of the client's code. Each comes from a loopback
//! address of its own, in rounds whose number is limited by their interval.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, join_all};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use voxline::auth::{Credentials, OAuthClient, TokenProvider, Vault};
use voxline::clock::SystemClock;
use voxline::net::{Endpoint, HttpClient};

use voxline_fixtures::gateway::server::endpoint;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time for which a stalled connection is held before its attacker opens another.
const HOLD: Duration = Duration::from_secs(20);

/// The gateway, and a token that may have one session at a time.
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) service_token: String,
}

impl Target {
    pub(super) fn endpoint(&self) -> Endpoint {
        endpoint(self.address)
    }

    /// Returns the tokens of a well-behaved client.
    pub(super) fn tokens(&self, client_id: String, client_secret: String, vault: &Path) -> TokenProvider {
        let vault = Vault::new(vault, &self.endpoint(), &client_id);
        let credentials = Credentials { client_id, client_secret: client_secret.into() };
        let clock = Arc::new(SystemClock::new());
        TokenProvider::oauth(
            OAuthClient::new(HttpClient::new().unwrap(), self.endpoint(), credentials, clock),
            vault,
        )
    }

    /// Connects from 127.0.0.`host`.
    async fn connect(&self, host: u8) -> Option<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)), 0).into()).unwrap();
        timeout(PATIENCE, socket.connect(self.address)).await.ok()?.ok()
    }

    /// Sends a request and waits for the first byte of an answer. Returns whether there was one.
    async fn ask(&self, host: u8, request: &[u8]) -> bool {
        let Some(mut socket) = self.connect(host).await else { return false };
        // The gateway may refuse in mid-request.
        let _ = timeout(PATIENCE, socket.write_all(request)).await;
        matches!(timeout(PATIENCE, socket.read(&mut [0; 1024])).await, Ok(Ok(length)) if length > 0)
    }

    /// Opens a WebSocket with the service token. Returns it if the upgrade succeeds.
    async fn socket(&self, host: u8) -> Option<TcpStream> {
        let mut socket = self.connect(host).await?;
        let request = format!(
            "GET /asr_stream/ws HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: voxline.asr.v1\r\n\r\n",
            self.service_token
        );
        socket.write_all(request.as_bytes()).await.ok()?;
        let mut answer = [0; 1024];
        let length = timeout(PATIENCE, socket.read(&mut answer)).await.ok()?.ok()?;
        answer[..length].starts_with(b"HTTP/1.1 101").then_some(socket)
    }
}

/// Returns the head of a request whose body is declared to be `length` bytes long.
fn post(path: &str, headers: &str, length: usize) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: gateway\r\n{headers}Content-Length: {length}\r\n\r\n").into_bytes()
}

/// Returns a masked frame with a mask of zeros (RFC 6455, section 5.2): opcode 1 is text, 2 binary.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

const START: &str = r#"{"type":"start","sample_rate":16000}"#;

/// Sends an M4A file whose tables announce more than its bytes can hold, twelve times, and closes each
/// connection as soon as the file is sent.
async fn lying_recordings(target: &Target) {
    let recording = lying_m4a();
    let request = [post("/asr_demo", "Content-Type: audio/mp4\r\n", recording.len()), recording].concat();
    for _ in 0..12 {
        if let Some(mut socket) = target.connect(11).await {
            let _ = timeout(PATIENCE, socket.write_all(&request)).await;
        }
    }
}

/// Returns `ftyp`, then a `moov` of 1.5 MB with one track after another, each with an edit list and no
/// samples.
fn lying_m4a() -> Vec<u8> {
    fn atom(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 8).unwrap();
        [&length.to_be_bytes()[..], name, body].concat()
    }
    let edits = atom(b"edts", &atom(b"elst", &[[0; 7].as_slice(), &[1], &[0; 12]].concat()));
    let track = atom(b"trak", &edits);
    let moov = atom(b"moov", &track.repeat(1_500_000 / track.len()));
    [atom(b"ftyp", b"M4A \0\0\0\0M4A mp42"), moov].concat()
}

/// Starts sixteen demo uploads of 20 MiB that stall after their first bytes.
async fn stalled_uploads(target: &Target) {
    let request = [post("/asr_demo", "", 20 << 20), vec![0; 1_000]].concat();
    hold(target, 12, &request, 16).await;
}

/// Opens connections that send nothing, and some that never end their head.
async fn silent_connections(target: &Target) {
    hold(target, 13, b"", 100).await;
    hold(target, 14, b"GET /healthz HTTP/1.1\r\nHo", 100).await;
}

/// Holds `count` connections on which only `said` was sent.
async fn hold(target: &Target, host: u8, said: &[u8], count: usize) {
    let mut held = Vec::new();
    for _ in 0..count {
        if let Some(mut socket) = target.connect(host).await {
            let _ = timeout(PATIENCE, socket.write_all(said)).await;
            held.push(socket);
        }
    }
    until_ended(held).await;
}

/// Reads each connection until the gateway ends it, for [`HOLD`] at most.
async fn until_ended(mut held: Vec<TcpStream>) {
    let ends = held
        .iter_mut()
        .map(|socket| async { while socket.read(&mut [0; 1024]).await.is_ok_and(|n| n > 0) {} });
    let _ = timeout(HOLD, join_all(ends)).await;
}

/// Opens more WebSockets than the gateway has places, which never send `start`.
async fn idle_sockets(target: &Target) {
    let mut held = Vec::new();
    for _ in 0..60 {
        held.extend(target.socket(15).await);
    }
    until_ended(held).await;
}

/// Runs a session that requests a final result after each 100 ms of noise, as often as it may, and reads
/// nothing.
async fn floods_of_flushes(target: &Target) {
    let Some(mut socket) = target.socket(16).await else { return };
    let mut said = frame(1, START.as_bytes());
    for index in 0..900u64 {
        let position = index * 1_600;
        let noise: Vec<u8> = (0..3_200u64).map(|byte| ((byte * byte + position) >> 3) as u8).collect();
        said.extend(frame(2, &[&position.to_le_bytes()[..], &noise].concat()));
        said.extend(frame(1, br#"{"type":"flush"}"#));
    }
    let _ = timeout(PATIENCE, socket.write_all(&said)).await;
}

/// Sends frames that break the protocol, each on a socket of its own.
async fn broken_frames(target: &Target) {
    let broken: [Vec<u8>; 5] = [
        frame(1, b"{"),
        frame(2, b"audio before start"),
        [frame(1, START.as_bytes()), frame(2, &u64::MAX.to_le_bytes())].concat(),
        [frame(1, START.as_bytes()), frame(1, br#"{"type":"finish","through":9007199254740991}"#)].concat(),
        vec![0xFF; 64],
    ];
    for said in broken {
        if let Some(mut socket) = target.socket(17).await {
            let _ = timeout(PATIENCE, socket.write_all(&said)).await;
            while timeout(PATIENCE, socket.read(&mut [0; 1024])).await.is_ok_and(|n| n.is_ok_and(|n| n > 0)) {
            }
        }
    }
}

/// Creates tasks that never get a chunk, like those of clients that crashed.
async fn abandoned_tasks(target: &Target) {
    let headers = format!("Authorization: Bearer {}\r\n", target.service_token);
    for _ in 0..8 {
        target.ask(18, &post("/asr_stream/create_task", &headers, 0)).await;
    }
}

/// Sends texts that have crashed speech programs.
async fn smashing_texts(target: &Target) {
    for text in ["A.".repeat(100), "\u{301}".repeat(400), "1.2.3.".repeat(100), "👩‍👩‍👧‍👦".repeat(40)]
    {
        target.ask(19, &[post("/tts_demo", "", text.len()), text.into_bytes()].concat()).await;
    }
}

/// Sends tokens that do not exist.
async fn wrong_tokens(target: &Target) {
    for number in 0..50 {
        let headers = format!("Authorization: Bearer vxs_{number:064}\r\n");
        target.ask(20, &post("/asr", &headers, 0)).await;
    }
}

/// Sends heads that are not requests.
async fn broken_requests(target: &Target) {
    for number in 0..50u8 {
        target.ask(21, &[&[number; 40][..], b"\r\n\r\n"].concat()).await;
    }
}

type Attack = for<'a> fn(&'a Target) -> BoxFuture<'a, ()>;

/// The attacks, each with the shortest interval between two starts of a round.
const ATTACKS: [(&str, Attack, Duration); 10] = [
    ("lying recordings", |target| lying_recordings(target).boxed(), Duration::from_secs(2)),
    ("stalled uploads", |target| stalled_uploads(target).boxed(), Duration::from_secs(1)),
    ("silent connections", |target| silent_connections(target).boxed(), Duration::from_secs(1)),
    ("idle sockets", |target| idle_sockets(target).boxed(), Duration::from_secs(1)),
    ("floods of flushes", |target| floods_of_flushes(target).boxed(), Duration::from_secs(5)),
    ("broken frames", |target| broken_frames(target).boxed(), Duration::from_secs(2)),
    ("abandoned tasks", |target| abandoned_tasks(target).boxed(), Duration::from_secs(2)),
    ("smashing texts", |target| smashing_texts(target).boxed(), Duration::from_secs(10)),
    ("wrong tokens", |target| wrong_tokens(target).boxed(), Duration::from_secs(2)),
    ("broken requests", |target| broken_requests(target).boxed(), Duration::from_secs(2)),
];

/// Runs all attacks until cancelled. Returns the number of rounds of each that began.
pub(super) async fn all(target: Arc<Target>, over: CancellationToken) -> Vec<(&'static str, usize)> {
    let attacking = ATTACKS.into_iter().map(|(name, attack, pace)| {
        let (target, over) = (&target, &over);
        async move {
            let mut beginning = interval(pace);
            beginning.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut rounds = 0;
            while over.run_until_cancelled(beginning.tick()).await.is_some() {
                rounds += 1;
                over.run_until_cancelled(attack(target)).await;
            }
            (name, rounds)
        }
    });
    join_all(attacking).await
}

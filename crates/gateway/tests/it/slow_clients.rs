//! Slow clients: they do not slow down other clients, and none of them stays for ever.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use voxline_gateway::{ConnectionOptions, Options};
use voxline_testing::DigestRecognizer;

use voxline_fixtures::gateway::audio::wav;
use voxline_fixtures::gateway::http::{access_token, http_client, url};
use voxline_fixtures::gateway::process::GatewayProcess;
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::voice::Tone;

/// Time that the gateway waits for headers and for bodies in these tests. It is doubled, up to the longest,
/// on a machine that is too busy to answer a round of requests within it.
const DEADLINE: Duration = Duration::from_secs(3);
const LONGEST_DEADLINE: Duration = Duration::from_secs(48);
/// Largest delay after the deadline before a client is cut off, on a busy machine.
const GRACE: Duration = Duration::from_secs(4);
/// Interval between two bytes of a slow client.
const PACE: Duration = Duration::from_millis(500);
const CLIENTS: usize = 500;
const ROUNDS: usize = 5;
/// Number of requests of each kind in a round.
const REQUESTS: usize = 150;

#[derive(Clone, Copy, Debug)]
enum Slow {
    /// Sends nothing.
    Silent,
    /// Sends headers byte by byte.
    Headers,
    /// Sends headers at once, and a recording byte by byte.
    Body,
}

/// Goes on until the client is cut off. Returns the time that took, and the answer.
async fn dawdle(mut socket: TcpStream, slow: Slow, token: &str) -> (Slow, Duration, String) {
    let started = now();
    let head = format!("POST /asr HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\n");
    let (at_once, slowly) = match slow {
        Slow::Silent => (String::new(), ""),
        Slow::Headers => (String::new(), head.as_str()),
        Slow::Body => (format!("{head}Content-Length: 100000\r\n\r\n"), "RIFFxxxxWAVEfmt xxxxxxxxxxxxxxxx"),
    };
    let (mut reader, mut writer) = socket.split();
    writer.write_all(at_once.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let sending = async {
        for byte in slowly.as_bytes() {
            tokio::time::sleep(PACE).await;
            if writer.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        // A byte that arrives too late may have turned the end into a reset.
        _ = reader.read_to_end(&mut answer) => {}
        () = sending => {}
    }
    (slow, started.elapsed(), String::from_utf8(answer).unwrap())
}

#[expect(clippy::disallowed_methods, reason = "deadlines are of real time")]
fn now() -> Instant {
    Instant::now()
}

/// Raises the limit of descriptors. The gateway takes half of a process's usual number, and here both ends
/// are in one process.
fn allow_descriptors() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = 4 * CLIENTS as u64;
    if current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).unwrap();
    }
}

/// A client that is not slow.
struct Normal<'a> {
    server: &'a Server,
    http: Client,
    token: String,
    recording: Vec<u8>,
}

impl Normal<'_> {
    /// Returns the median time for both kinds of request, of those answered while `undisturbed` returns
    /// true. Returns `None` if these are too few for a median.
    async fn measure(&self, mut undisturbed: impl FnMut() -> bool) -> Option<Duration> {
        let mut times = Vec::new();
        for _ in 0..REQUESTS {
            let started = now();
            let probe = self.http.get(url(self.server, "/tts")).bearer_auth(&self.token);
            assert_eq!(probe.send().await.unwrap().status().as_u16(), 400);
            let post = self.http.post(url(self.server, "/asr")).bearer_auth(&self.token);
            let answer = post.body(self.recording.clone()).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 200);
            answer.bytes().await.unwrap();
            if !undisturbed() {
                break;
            }
            times.push(started.elapsed());
        }
        if times.len() < REQUESTS / 5 {
            return None;
        }
        times.sort_unstable();
        Some(times[times.len() / 2])
    }
}

async fn connect(address: SocketAddr, token: &str) -> JoinSet<(Slow, Duration, String)> {
    let mut clients = JoinSet::new();
    for kind in [Slow::Silent, Slow::Headers, Slow::Body].into_iter().cycle().take(CLIENTS) {
        let (socket, token) = (TcpStream::connect(address).await.unwrap(), token.to_owned());
        clients.spawn(async move { dawdle(socket, kind, &token).await });
    }
    clients
}

/// Measures rounds of requests beside slow clients, which the gateway cuts off at `deadline`. Returns the
/// factors by which requests took longer, or `None` if the slow clients were gone before enough requests
/// were answered.
#[expect(clippy::print_stderr, reason = "the figures are what one runs it for")]
async fn rounds(deadline: Duration) -> Option<Vec<f64>> {
    let options = Options {
        connections: ConnectionOptions {
            header_timeout: deadline,
            body_timeout: deadline,
            ..ConnectionOptions::default()
        },
        ..Options::default()
    };
    let setup = Setup { options, ..Setup::default() };
    let server = Server::with(Arc::new(DigestRecognizer::new(16_000)), setup).await;
    let http = http_client().unwrap();
    let token = access_token(&server, &http).await;
    let normal = Normal { server: &server, http, token: token.clone(), recording: wav(1, 16_000, 16_000) };
    normal.measure(|| true).await;

    let mut ratios = Vec::new();
    while ratios.len() < ROUNDS {
        let alone = normal.measure(|| true).await.expect("nothing ends it");
        let mut clients = connect(server.address, &token).await;
        let mut ended = None;
        // On a busy machine the first client is cut off before all requests are answered.
        let among = normal.measure(|| {
            ended = clients.try_join_next();
            ended.is_none()
        });
        let among = among.await;
        while let Some(client) = match ended.take() {
            Some(first) => Some(first),
            None => timeout(deadline + GRACE, clients.join_next()).await.expect("one is never cut off"),
        } {
            let (slow, lasted, answer) = client.unwrap();
            assert!(lasted > deadline * 9 / 10 && lasted < deadline + GRACE, "{slow:?}: {lasted:?}");
            match slow {
                Slow::Silent | Slow::Headers => assert_eq!(answer, "", "{slow:?}"),
                Slow::Body => assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}"),
            }
        }
        let Some(among) = among else {
            server.stop().await;
            return None;
        };
        ratios.push(among.as_secs_f64() / alone.as_secs_f64());
        eprintln!("alone {alone:?}, among {CLIENTS} slow clients {among:?}");
    }
    server.stop().await;
    Some(ratios)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "the figures are what one runs it for")]
async fn five_hundred_slow_clients_slow_nobody_and_are_cut_off() {
    allow_descriptors();
    let mut deadline = DEADLINE;
    let mut ratios = loop {
        if let Some(ratios) = rounds(deadline).await {
            break ratios;
        }
        deadline *= 2;
        assert!(deadline <= LONGEST_DEADLINE, "this machine is too busy to measure anything");
    };
    ratios.sort_unstable_by(f64::total_cmp);
    eprintln!("slower by a factor of {ratios:.2?}");
    // Other load on the machine can only make a round worse.
    assert!(ratios[0] < 1.1, "{ratios:?}");
}

/// Returns a server that takes one connection at a time, with the deadlines of `deadlines`.
async fn server_of_one_connection(deadlines: ConnectionOptions) -> Server {
    let connections = ConnectionOptions { max: 1, max_per_address: 0, ..deadlines };
    let options = Options { connections, ..Options::default() };
    let setup = Setup { options, ..Setup::default() };
    Server::with(Arc::new(DigestRecognizer::new(16_000)), setup).await
}

#[tokio::test]
async fn one_connection_too_many_waits_until_another_ends() {
    let deadlines = ConnectionOptions { header_timeout: DEADLINE, ..ConnectionOptions::default() };
    let server = server_of_one_connection(deadlines).await;
    let started = now();
    let _silent = TcpStream::connect(server.address).await.unwrap();
    let answer = http_client().unwrap().get(url(&server, "/healthz")).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    assert!(started.elapsed() > DEADLINE * 9 / 10);
    server.stop().await;
}

/// Sends requests without end and reads no answer, until the connection is cut off.
async fn ask_without_end(address: SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut deaf = socket.connect(address).await.unwrap();
    let requests = "GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n".repeat(1_000);
    while deaf.write_all(requests.as_bytes()).await.is_ok() {}
}

#[tokio::test]
async fn who_asks_and_never_reads_is_cut_off() {
    let deadlines = ConnectionOptions { write_timeout: DEADLINE, ..ConnectionOptions::default() };
    let server = server_of_one_connection(deadlines).await;
    let started = now();
    timeout(10 * DEADLINE, ask_without_end(server.address)).await.expect("it holds its connection for ever");
    assert!(started.elapsed() > DEADLINE * 9 / 10);
    let answer = http_client().unwrap().get(url(&server, "/healthz")).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    server.stop().await;
}

#[tokio::test]
async fn who_reads_slowly_gets_the_whole_answer() {
    let options = Options {
        connections: ConnectionOptions { write_timeout: DEADLINE, ..ConnectionOptions::default() },
        ..Options::default()
    };
    let setup = Setup { options, voices: Tone::voices(), ..Setup::default() };
    let server = Server::with(Arc::new(DigestRecognizer::new(16_000)), setup).await;
    let token = access_token(&server, &http_client().unwrap()).await;
    let text = "All of it. ".repeat(500);
    let head = format!("Host: gateway\r\nAuthorization: Bearer {token}\r\nConnection: close");
    let request = format!("POST /tts HTTP/1.1\r\n{head}\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let mut patient = socket.connect(server.address).await.unwrap();
    patient.write_all(request.as_bytes()).await.unwrap();
    let started = now();
    let (mut answer, mut part) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        let length = patient.read(&mut part).await.unwrap();
        answer.extend_from_slice(&part[..length]);
        if length == 0 {
            break;
        }
        if started.elapsed() < 2 * DEADLINE {
            tokio::time::sleep(PACE).await;
        }
    }
    assert!(answer.ends_with(b"\r\n0\r\n\r\n"), "it is cut off after {} bytes", answer.len());
    assert!(answer.len() > 1_000_000, "{}", answer.len());
    server.stop().await;
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_no_more() {
    let options = Options {
        connections: ConnectionOptions { max_per_address: 2, ..ConnectionOptions::default() },
        ..Options::default()
    };
    let setup = Setup { options, ..Setup::default() };
    let server = Server::with(Arc::new(DigestRecognizer::new(16_000)), setup).await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    ask_health(&mut first).await;
    let mut second = TcpStream::connect(server.address).await.unwrap();
    ask_health(&mut second).await;
    let mut third = TcpStream::connect(server.address).await.unwrap();
    let told = timeout(10 * DEADLINE, third.read(&mut [0])).await.expect("it is left waiting");
    assert!(matches!(told, Ok(0) | Err(_)), "{told:?}");
    // A slot is free once its connection has ended.
    drop(first);
    let admitted = async {
        loop {
            let mut again = TcpStream::connect(server.address).await.unwrap();
            let request = b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n";
            if again.write_all(request).await.is_ok() && again.read_exact(&mut [0]).await.is_ok() {
                break;
            }
        }
    };
    timeout(10 * DEADLINE, admitted).await.expect("the place is kept");
    server.stop().await;
}

/// Requests the gateway's health, and reads the beginning of the answer.
async fn ask_health(socket: &mut TcpStream) {
    socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n").await.unwrap();
    hear_status(socket).await;
}

async fn hear_status(socket: &mut TcpStream) {
    let mut status = [0; 12];
    socket.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
}

/// Returns the processor time that a process has used, in hundredths of a second.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, numbers) = stat.rsplit_once(") ").unwrap();
    numbers.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn a_gateway_without_descriptors_waits_for_one_and_goes_on() {
    let gateway = GatewayProcess::start();
    let pid = gateway.pid();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
    let process = Pid::from_raw(pid.try_into().unwrap());
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(process, Resource::Nofile, Rlimit { current: Some(open + 10), maximum }).unwrap();

    let mut held = Vec::new();
    let mut waiting = loop {
        assert!(held.len() < 20, "descriptors are not limited");
        let mut socket = TcpStream::connect(gateway.address).await.unwrap();
        let before = ticks(pid);
        match timeout(Duration::from_secs(1), ask_health(&mut socket)).await {
            Ok(()) => held.push(socket),
            Err(_) => {
                let busy = ticks(pid) - before;
                assert!(busy < 30, "it tries without end: {busy} ticks in a second");
                break socket;
            }
        }
    };
    assert!(held.len() > 2, "{}", held.len());
    drop(held);
    timeout(GRACE, hear_status(&mut waiting)).await.expect("it does not go on");
}

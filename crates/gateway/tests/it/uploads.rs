//! Recordings that are sent and abandoned, or never sent completely: their cost, and the effect on other
//! clients.

use std::fs;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Client, RequestBuilder};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};
use voxline::engine::{
    EngineError, RecognitionRequest, Recognizer, RecognizerStream, Voice, VoiceInfo, Voices,
};
use voxline_gateway::Options;
use voxline_testing::DigestRecognizer;

use crate::stream::{audio, digest};
use voxline_fixtures::attacks::nested_pages;
use voxline_fixtures::cost::{OF_A_GATEWAY, cost};
use voxline_fixtures::deadline::within;
use voxline_fixtures::gateway::audio::wav;
use voxline_fixtures::gateway::http::{access_token, ask_token, by_credentials, http_client, url};
use voxline_fixtures::gateway::process::GatewayProcess;
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::socket::Socket;
use voxline_fixtures::gateway::voice::voice_info;

/// Longest wait of these tests.
const PATIENCE: Duration = Duration::from_secs(60);
/// Number of samples in a segment.
const SEGMENT: usize = 8_000;
const MAX_BYTES: usize = 20 * 1024 * 1024;

/// A recogniser that starts recordings in one language only when the test allows it, so that the upload's
/// thread waits. All other recordings are digested.
struct Stuck {
    digests: DigestRecognizer,
    started: Sender<()>,
    allowed: Mutex<Receiver<()>>,
    under_way: AtomicUsize,
    most: Arc<AtomicUsize>,
}

impl Recognizer for Stuck {
    fn name(&self) -> &str {
        "stuck"
    }

    fn start(&self, request: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
        if request.only_language() == Some("stuck") {
            self.most.fetch_max(self.under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // If the test has failed, the receiver is gone.
            let _ = self.started.send(());
            let _ = self.allowed.lock().unwrap().recv();
            self.under_way.fetch_sub(1, Ordering::SeqCst);
        }
        self.digests.start(request)
    }
}

/// Starts a gateway with that recogniser. Returns it with the receiver of starts, the sender that allows
/// one to go on, and the largest number of recordings that waited at once.
async fn stuck_server(options: Options) -> (Server, Receiver<()>, Sender<()>, Arc<AtomicUsize>) {
    let ((started, starts), (allow, allowed)) = (channel(), channel());
    let most = Arc::new(AtomicUsize::new(0));
    let recognizer = Stuck {
        digests: DigestRecognizer::new(SEGMENT),
        started,
        allowed: Mutex::new(allowed),
        under_way: AtomicUsize::new(0),
        most: Arc::clone(&most),
    };
    let server = Server::with(Arc::new(recognizer), Setup { options, ..Setup::default() }).await;
    (server, starts, allow, most)
}

/// Sends a recording, or the part of it in `body`. Returns the connection.
async fn post(
    address: std::net::SocketAddr,
    path: &str,
    token: &str,
    length: usize,
    body: &[u8],
) -> TcpStream {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n"
    );
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(head.as_bytes()).await.unwrap();
    // The gateway cuts off a client that it refuses meanwhile.
    let _ = client.write_all(body).await;
    client
}

/// Posts a recording of a tenth of a second. Returns the status of the answer.
async fn ask(http: &Client, url: String, token: &str) -> u16 {
    answered(http.post(url).bearer_auth(token).body(wav(1, 16_000, 1_600))).await
}

/// Returns the status of the answer to a request. The request's own deadline is later than that of the
/// test.
async fn answered(request: RequestBuilder) -> u16 {
    let sent = request.timeout(2 * PATIENCE).send();
    within(PATIENCE, "an answer of the gateway", sent).await.unwrap().status().as_u16()
}

async fn received(starts: Receiver<()>, count: usize) -> Receiver<()> {
    let receiving = tokio::task::spawn_blocking(move || {
        (0..count).for_each(|_| starts.recv_timeout(PATIENCE).expect("decoding of an upload begins"));
        starts
    });
    receiving.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_was_left_keeps_its_place_and_holds_up_nobody_else() {
    const REQUESTS: usize = 3;
    let threads = NonZero::new(2 * REQUESTS).unwrap();
    let options = Options { max_requests: REQUESTS, threads, ..Options::default() };
    let (server, starts, allow, _) = stuck_server(options).await;
    let http = http_client().unwrap();
    let token = access_token(&server, &http).await;
    let recording = wav(1, 16_000, 1_600);
    let mut clients = Vec::new();
    for _ in 0..REQUESTS {
        let path = "/asr?language=stuck";
        clients.push(post(server.address, path, &token, recording.len(), &recording).await);
    }
    let _starts = received(starts, REQUESTS).await;
    drop(clients);

    // Meanwhile tokens are granted, and a session goes on.
    let tokens = server.tokens().token().await.unwrap();
    let pcm = audio(4 * SEGMENT as u64);
    let (mut socket, _) = Socket::start(&server, &tokens).await;
    socket.audio(&pcm, 0, pcm.len() as u64);
    for _ in 0..20 {
        // Long after the clients have gone, their work still runs and holds the slots. Other requests must
        // not wait for the threads that it holds.
        let refused = ask(&http, url(&server, "/asr"), &token);
        assert_eq!(within(PATIENCE / 2, "a refusal while all places are held", refused).await, 429);
        assert_eq!(ask_token(&server, &http, &by_credentials(&server)).await.status().as_u16(), 200);
    }
    let finals = socket.end(pcm.len() as u64).await;
    let expected: Vec<String> = pcm.chunks(SEGMENT).map(digest).collect();
    assert!(finals.iter().map(|segment| &segment.text).eq(&expected), "{finals:?}");

    (0..REQUESTS).for_each(|_| allow.send(()).unwrap());
    let free = async { while ask(&http, url(&server, "/asr"), &token).await == 429 {} };
    timeout(PATIENCE, free).await.expect("the places are free when the work has ended");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_decoded_on_half_the_threads() {
    const UPLOADS: usize = 6;
    let options = Options { max_requests: UPLOADS, threads: NonZero::new(4).unwrap(), ..Options::default() };
    let (server, mut starts, allow, most) = stuck_server(options).await;
    let http = http_client().unwrap();
    let token = access_token(&server, &http).await;
    let recording = wav(1, 16_000, 1_600);
    let mut clients = Vec::new();
    for _ in 0..UPLOADS {
        let path = "/asr?language=stuck";
        clients.push(post(server.address, path, &token, recording.len(), &recording).await);
    }
    starts = received(starts, 2).await;
    for _ in 2..UPLOADS {
        allow.send(()).unwrap();
        starts = received(starts, 1).await;
    }
    (0..2).for_each(|_| allow.send(()).unwrap());
    let free = async { while ask(&http, url(&server, "/asr"), &token).await != 200 {} };
    timeout(PATIENCE, free).await.expect("all have ended");
    assert_eq!(most.load(Ordering::SeqCst), 2);
    drop((clients, starts));
    server.stop().await;
}

/// Returns the CPU time of a process, in hundredths of a second (proc(5)).
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stdout, reason = "the figures")]
async fn hostile_uploads_that_are_left_end_with_their_clients() {
    const CLIENTS: usize = 4;
    /// CPU time in hundredths of a second: a third of the whole cost of one upload, and several times the
    /// cost of receiving it.
    const DECODING: u64 = 20;
    let file = nested_pages(1_500_000);
    // Cost of one upload until the gateway's limit stops it.
    let whole = cost(file.clone(), Some(OF_A_GATEWAY)).cpu;
    let gateway = GatewayProcess::start();
    let http = http_client().unwrap();
    let token = gateway.tokens().token().await.unwrap();
    let token = token.bearer();
    let token = token.to_str().unwrap().strip_prefix("Bearer ").unwrap();
    let asr = format!("http://{}/asr", gateway.address);
    assert_eq!(ask(&http, asr.clone(), token).await, 200);

    let before = cpu_ticks(gateway.pid());
    // One after another, because the remaining work of one would be taken for the beginning of the next.
    for _ in 0..CLIENTS {
        let before = cpu_ticks(gateway.pid());
        let client = post(gateway.address, "/asr", token, file.len(), &file).await;
        let mut looking = interval(Duration::from_millis(1));
        let decoding = async {
            while cpu_ticks(gateway.pid()) - before < DECODING {
                looking.tick().await;
            }
        };
        timeout(PATIENCE, decoding).await.expect("decoding of an upload begins");
        drop(client);
        // The remaining work, on whatever thread, shows beside a recording that costs nothing.
        let settled = async {
            let mut quiet = 0;
            while quiet < 3 {
                let before = cpu_ticks(gateway.pid());
                ask(&http, asr.clone(), token).await;
                quiet = if cpu_ticks(gateway.pid()) - before <= 3 { quiet + 1 } else { 0 };
            }
        };
        timeout(PATIENCE, settled).await.expect("the gateway rests");
    }
    let spent = Duration::from_millis(10 * (cpu_ticks(gateway.pid()) - before));
    println!("{CLIENTS} that cost {whole:?} each, left: {spent:?}");
    let all = whole * CLIENTS as u32;
    assert!(spent < all / 2, "{spent:?} for {CLIENTS} uploads that were left, and all of them cost {all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_uploads_of_a_demo_take_nothing_from_who_has_a_token() {
    // One slot for all clients with a token, and one for clients of the demo, each with room for one file.
    let options = Options { demo: true, max_requests: 1, ..Options::default() };
    let recognizer = Arc::new(DigestRecognizer::new(SEGMENT));
    let server = Server::with(recognizer, Setup { options, ..Setup::default() }).await;
    let http = http_client().unwrap();
    let token = access_token(&server, &http).await;
    // The last byte never comes.
    let body = vec![0; MAX_BYTES - 1];
    let stall = || post(server.address, "/asr_demo", "", MAX_BYTES, &body);
    let mut stalled = stall().await;
    let full = async {
        let mut rounds = 0;
        while rounds < 5 {
            if ask(&http, url(&server, "/asr_demo"), "").await == 429 {
                assert_eq!(ask(&http, url(&server, "/asr"), &token).await, 200);
                rounds += 1;
                continue;
            }
            rounds = 0;
            // An upload that still arrives is refused if the request before took the room for its rest.
            if stalled.try_read(&mut [0]).is_ok() {
                stalled = stall().await;
            }
        }
    };
    timeout(PATIENCE, full).await.expect("the demo is full");
    drop(stalled);
    let free = async { while ask(&http, url(&server, "/asr_demo"), "").await == 429 {} };
    timeout(PATIENCE, free).await.expect("the demo has room again");
    server.stop().await;
}

/// A voice that speaks at once, except for one text, which it never ends.
struct Endless {
    info: VoiceInfo,
    started: Sender<()>,
    never: Mutex<Receiver<()>>,
}

impl Voice for Endless {
    fn info(&self) -> &VoiceInfo {
        &self.info
    }

    fn speak_in_pieces(
        &self,
        sentence: &str,
        _: f32,
        take: &mut dyn FnMut(&[i16]) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        if sentence.contains("endless") {
            let _ = self.started.send(());
            let _ = self.never.lock().unwrap().recv();
        }
        let _ = take(&[0x1234; 2_400]);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_has_turns_of_its_own_to_speak() {
    let ((started, starts), (end, never)) = (channel(), channel());
    let info = voice_info("endless", "en");
    let voice: Arc<dyn Voice> = Arc::new(Endless { info, started, never: Mutex::new(never) });
    let options = Options { demo: true, threads: NonZero::<usize>::MIN, ..Options::default() };
    let setup = Setup { options, voices: Voices::new(vec![voice]), ..Setup::default() };
    let server = Server::with(Arc::new(DigestRecognizer::new(SEGMENT)), setup).await;
    let http = http_client().unwrap();
    let token = access_token(&server, &http).await;
    let text = "endless";
    let head =
        format!("POST /tts_demo HTTP/1.1\r\nHost: gateway\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    let mut demo = TcpStream::connect(server.address).await.unwrap();
    demo.write_all(head.as_bytes()).await.unwrap();
    let _starts = received(starts, 1).await;
    let spoken = answered(http.get(url(&server, "/tts?text=Hello")).bearer_auth(&token));
    assert_eq!(within(PATIENCE / 2, "a turn for who has a token", spoken).await, 200);
    end.send(()).unwrap();
    drop(demo);
    server.stop().await;
}

//! The work that a recording is: it goes on no longer than its client, results come while it runs, and its
//! length costs no memory.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use reqwest::Body;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::interval;
use voxline_gateway::authority::Terms;
use voxline_gateway::{Options, RecordingOptions};
use voxline_testing::NullRecognizer;

use super::super::gated::{Gate, gated};
use super::{BOUNDARY, TRANSCRIPTIONS, form, service_token};
use voxline_fixtures::allocations::{self, Meter};
use voxline_fixtures::deadline::within;
use voxline_fixtures::gateway::audio::wav;
use voxline_fixtures::gateway::http::{http_client, url};
use voxline_fixtures::gateway::server::{Server, Setup};

const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway with room for one recording, and the sender that lets a second of it pass.
async fn gated_server() -> (Server, Arc<Gate>, Sender<()>) {
    let (recognizer, gate, allow) = gated(16_000);
    let recordings = RecordingOptions { disk_bytes: 3 << 20, ..RecordingOptions::default() };
    let options = Options { max_requests: 1, recordings, ..Options::default() };
    let server = Server::with(Arc::new(recognizer), Setup { options, ..Setup::default() }).await;
    (server, gate, allow)
}

/// Sends a German recording of a minute, and returns the connection.
async fn post(server: &Server, token: &str, stream: &str) -> TcpStream {
    let fields = [("language", "de"), ("stream", stream)];
    let body = form(&fields, Some(&wav(1, 16_000, 60 * 16_000)));
    let head = format!(
        "POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&body).await.unwrap();
    socket
}

/// Sends an English recording until there is room for it.
async fn room(server: &Server, token: &str) {
    let http = http_client().unwrap();
    let body = form(&[("language", "en")], Some(&wav(1, 16_000, 60 * 16_000)));
    let ask = || {
        let request = http.post(url(server, TRANSCRIPTIONS)).bearer_auth(token);
        let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
        request.header("Content-Type", content_type).body(body.clone()).send()
    };
    let free = async {
        loop {
            match ask().await.unwrap().status().as_u16() {
                200 => return,
                status => assert_eq!(status, 429),
            }
        }
    };
    within(PATIENCE, "room for another recording", free).await;
}

async fn pushed(gate: &Gate, count: usize) {
    let reached = async {
        let mut looking = interval(Duration::from_millis(1));
        while gate.pushes.load(Ordering::SeqCst) < count {
            looking.tick().await;
        }
    };
    within(PATIENCE, "the recogniser's next second", reached).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_the_work() {
    const SECONDS: usize = 3;
    for stream in ["false", "true"] {
        let (server, gate, allow) = gated_server().await;
        let token = service_token(&server, Terms::default());
        let socket = post(&server, &token, stream).await;
        (1..SECONDS).for_each(|_| allow.send(()).unwrap());
        pushed(&gate, SECONDS).await;
        drop(socket);
        // From now on the recogniser is ten times as fast as speech. The turn under way ends, and soon no
        // other follows. Then its place and its disk space are free.
        let recognising = async {
            let mut tenth = interval(Duration::from_millis(100));
            loop {
                tenth.tick().await;
                allow.send(()).unwrap();
            }
        };
        tokio::select! {
            () = room(&server, &token) => {}
            () = recognising => {}
        }
        let pushes = gate.pushes.load(Ordering::SeqCst);
        assert!(pushes <= SECONDS + 10, "{pushes} seconds were recognised");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_while_the_recording_is_recognised() {
    let (server, gate, allow) = gated_server().await;
    let token = service_token(&server, Terms::default());
    let mut socket = post(&server, &token, "true").await;
    allow.send(()).unwrap();
    pushed(&gate, 2).await;
    let mut read = String::new();
    let mut buffer = [0; 4_096];
    let first = async {
        while !read.contains("transcript.text.delta") {
            let count = socket.read(&mut buffer).await.unwrap();
            assert_ne!(count, 0, "the gateway hung up: {read}");
            read.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
    };
    within(PATIENCE, "the first event", first).await;
    assert_eq!(gate.pushes.load(Ordering::SeqCst), 2, "the recogniser waits for the second second");
    (0..60).for_each(|_| allow.send(()).unwrap());
    let rest = async {
        while !read.contains("data: [DONE]") {
            let count = socket.read(&mut buffer).await.unwrap();
            assert_ne!(count, 0, "the gateway hung up: {read}");
            read.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
    };
    within(PATIENCE, "the last event", rest).await;
    assert_eq!(read.matches("transcript.text.delta").count(), 60);
    server.stop().await;
}

/// Environment variable that tells a process that it measures.
const ALONE: &str = "VOXLINE_OPENAI_ALONE";
static METER: Meter = Meter::new();
/// Largest heap of client and gateway together: a second of the decoder's blocks, 30 seconds of audio, and
/// the buffers of HTTP and of the upload.
const PEAK_MAX: usize = 8 << 20;

/// Measured in a process of its own, in which all memory belongs to the gateway or to its client.
#[test]
#[allow(clippy::disallowed_methods, reason = "tells the process that is started what it is for")]
#[allow(clippy::print_stdout, reason = "the figures")]
fn the_length_of_a_recording_costs_no_memory() {
    if std::env::var_os(ALONE).is_some() {
        return measure();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let name = "openai::endings::the_length_of_a_recording_costs_no_memory";
    let ran = command.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
    println!("{}", String::from_utf8_lossy(&ran.stdout));
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[allow(clippy::print_stdout, reason = "the figures")]
fn measure() {
    allocations::count_everybody(&METER);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let peaks = runtime.block_on(async {
        let recognizer = Arc::new(NullRecognizer::new(30 * 16_000));
        let server = Server::with(recognizer, Setup::default()).await;
        let token = service_token(&server, Terms::default());
        let mut peaks = Vec::new();
        for minutes in [5, 60] {
            METER.reset();
            let answer = send_minutes(&server, &token, minutes).await;
            assert_eq!(answer["duration"], f64::from(60 * minutes));
            peaks.push(METER.peak());
        }
        server.stop().await;
        peaks
    });
    println!("peak of the heap: {} KB with 5 minutes, {} KB with 60", peaks[0] / 1_024, peaks[1] / 1_024);
    assert!(peaks.iter().all(|peak| *peak <= PEAK_MAX), "{peaks:?}");
    assert!(peaks[1] < peaks[0] + peaks[0] / 2, "{peaks:?}");
}

/// Sends a recording of this many minutes, which is made while it is sent.
async fn send_minutes(server: &Server, token: &str, minutes: u32) -> Value {
    let bytes = minutes * 60 * 16_000 * 2;
    let mut header = wav(1, 16_000, 0);
    header[4..8].copy_from_slice(&(bytes + 36).to_le_bytes());
    header[40..44].copy_from_slice(&bytes.to_le_bytes());
    let form = form(&[("response_format", "verbose_json")], Some(&header));
    // The end of the form: the line break after the file, and the last boundary.
    let end = form.len() - format!("\r\n--{BOUNDARY}--\r\n").len();
    let second = Bytes::from(vec![1; 32_000]);
    let seconds = std::iter::repeat_n(second, minutes as usize * 60);
    let parts = [Bytes::copy_from_slice(&form[..end])].into_iter().chain(seconds);
    let parts: Vec<Result<Bytes, std::io::Error>> =
        parts.chain([Bytes::copy_from_slice(&form[end..])]).map(Ok).collect();
    let request = http_client().unwrap().post(url(server, TRANSCRIPTIONS)).bearer_auth(token);
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    let request = request.header("Content-Type", content_type).body(Body::wrap_stream(stream::iter(parts)));
    request.send().await.unwrap().json().await.unwrap()
}

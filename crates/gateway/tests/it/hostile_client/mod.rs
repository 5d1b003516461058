//! Hostile clients, whose requests and frames are nearly right. The gateway must answer or close, in
//! bounded time and memory, and serve other clients meanwhile.
//!
//! Each surface is attacked in a process of its own, in which every panic, every byte of the heap, every
//! task and every descriptor belongs to the gateway or to its hostile clients.

mod answer;
mod dialect_requests;
mod dialect_sockets;
mod frames;
mod http;
mod key_requests;
mod mutation;
mod player;
mod request;
mod script;
mod socket;
mod wyoming;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs;
use std::panic;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::runtime::{self, Handle};
use tokio::task::JoinSet;
use tokio::time::Instant;
use voxline::auth::{AccessToken, Credentials, TokenGeneration};
use voxline::decode::panic_is_caught;
use voxline_gateway::authority::{NewClient, Terms};
use voxline_gateway::{ChunkedOptions, ConnectionOptions, OpenAccess, Options, WyomingAddress};
use voxline_testing::DigestRecognizer;

use self::dialect_sockets::Dialect;
use self::request::Request;
use self::socket::Known;
use crate::stream::{audio, digest};
use voxline_fixtures::allocations::{self, Meter};
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::socket::Socket;
use voxline_fixtures::gateway::voice::Tone;
use voxline_fixtures::knob::knob;
use voxline_fixtures::random::{self, Random};
use voxline_fixtures::samples::sample;

/// Longest wait for an answer, and for the end of a connection.
const PATIENCE: Duration = Duration::from_secs(60);
/// Number of concurrent hostile clients, each with one connection.
const CLIENTS: u64 = 6;
/// Number of inputs in an ordinary run, and number of inputs between two checks that the gateway works as
/// before.
const MUTATIONS: u64 = 20_000;
const BATCH: u64 = 5_000;
/// Number of inputs of each dialect in an ordinary run.
const DIALECT_MUTATIONS: u64 = 500;
/// Largest size of the heap of clients and gateway together. One damaged recording may need 64 MiB by the
/// bounds of `front_end::hostile`, two are decoded at once on two threads, and 20 MB may be announced and
/// read.
const PEAK_MAX: usize = 192 << 20;
/// Largest growth of the idle heap after the first batch, once all clients have gone: tables that grew, and
/// results of tasks that are kept for a while.
const LEFT_MAX: i64 = 4 << 20;
/// Environment variable that tells a process that it runs the attack.
const ALONE: &str = "VOXLINE_HOSTILE_ALONE";
/// Length of a segment: half a second.
const SEGMENT: usize = 8_000;

static METER: Meter = Meter::new();
/// Number of panics that no decoder's guard catches.
static PANICS: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Copy)]
enum Surface {
    Http,
    Socket,
    /// Requests of dialects.
    Requests,
    /// Requests for short-lived keys, and streams that are opened with them.
    Keys,
    /// A dialect on WebSockets.
    Dialect(Dialect),
    Wyoming,
}

impl Surface {
    fn test(self) -> &'static str {
        match self {
            Surface::Http => "hostile_client::mutated_requests_are_answered",
            Surface::Socket => "hostile_client::mutated_frames_are_answered_or_close_the_socket",
            Surface::Requests => "hostile_client::mutated_dialects_requests",
            Surface::Keys => "hostile_client::mutated_dialects_keys",
            Surface::Dialect(Dialect::Deepgram) => "hostile_client::mutated_dialects_deepgram",
            Surface::Dialect(Dialect::Speak) => "hostile_client::mutated_dialects_speak",
            Surface::Dialect(Dialect::Realtime) => "hostile_client::mutated_dialects_realtime",
            Surface::Dialect(Dialect::Vosk) => "hostile_client::mutated_dialects_vosk",
            Surface::Dialect(Dialect::Jambonz) => "hostile_client::mutated_dialects_jambonz",
            Surface::Wyoming => "hostile_client::mutated_dialects_wyoming",
        }
    }

    /// Returns the number of inputs of a run.
    fn inputs(self) -> u64 {
        match self {
            Surface::Http | Surface::Socket => knob("VOXLINE_MUTATIONS").unwrap_or(MUTATIONS),
            _ => knob("VOXLINE_DIALECT_MUTATIONS").unwrap_or(DIALECT_MUTATIONS),
        }
    }
}

/// `VOXLINE_MUTATIONS` is the number of requests that are answered. A million:
///
/// ```text
/// VOXLINE_MUTATIONS=1000000 cargo test -p voxline-gateway --test it -- --nocapture hostile_client
/// ```
#[test]
fn mutated_requests_are_answered() {
    alone(Surface::Http);
}

/// The same test for frames on WebSockets.
#[test]
fn mutated_frames_are_answered_or_close_the_socket() {
    alone(Surface::Socket);
}

/// `VOXLINE_DIALECT_MUTATIONS` is the number of inputs of each dialect. 200,000 of each are `./dev prove
/// dialects`.
#[test]
fn mutated_dialects_requests() {
    alone(Surface::Requests);
}

#[test]
fn mutated_dialects_keys() {
    alone(Surface::Keys);
}

#[test]
fn mutated_dialects_speak() {
    alone(Surface::Dialect(Dialect::Speak));
}

#[test]
fn mutated_dialects_deepgram() {
    alone(Surface::Dialect(Dialect::Deepgram));
}

#[test]
fn mutated_dialects_realtime() {
    alone(Surface::Dialect(Dialect::Realtime));
}

#[test]
fn mutated_dialects_vosk() {
    alone(Surface::Dialect(Dialect::Vosk));
}

#[test]
fn mutated_dialects_jambonz() {
    alone(Surface::Dialect(Dialect::Jambonz));
}

#[test]
fn mutated_dialects_wyoming() {
    alone(Surface::Wyoming);
}

/// Runs the attack in a process of its own.
#[allow(clippy::disallowed_methods, reason = "tells the process that is started what it is for")]
#[allow(clippy::print_stdout, reason = "the figures are what a long run is for")]
fn alone(surface: Surface) {
    if std::env::var_os(ALONE).is_some() {
        return attacked(surface);
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", surface.test(), "--nocapture"]).env(ALONE, "1");
    let ran = command.output().unwrap();
    println!("{}", String::from_utf8_lossy(&ran.stdout));
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[allow(clippy::print_stdout, reason = "the figures are what a long run is for")]
fn attacked(surface: Surface) {
    count_panics();
    allocations::count_everybody(&METER);
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let report = runtime.block_on(attack(surface));
    println!("{report}");
    assert_eq!(PANICS.load(Relaxed), 0, "panics, see above");
    assert!(METER.peak() <= PEAK_MAX, "{} bytes at once", METER.peak());
}

/// Counts and prints panics. Panics of decoders are left out: they are errors to the gateway.
fn count_panics() {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !panic_is_caught() {
            PANICS.fetch_add(1, Relaxed);
            hook(info);
        }
    }));
}

#[expect(clippy::disallowed_methods, reason = "the figures of a run are of real time")]
async fn attack(surface: Surface) -> Report {
    let world = Arc::new(World::start().await);
    let tasks = Handle::current().metrics().num_alive_tasks();
    let (seeds, wanted) = (Arc::new(AtomicU64::new(random::seed())), surface.inputs());
    let started = Instant::now();
    let mut report = Report::default();
    let mut first = None;
    while report.tally.inputs < wanted {
        world.check(surface).await;
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(client(world.clone(), surface, seeds.clone(), BATCH.min(wanted).div_ceil(CLIENTS)));
        }
        while let Some(tally) = clients.join_next().await {
            report.tally.add(tally.unwrap());
        }
        world.check(surface).await;
        if first.is_none() || report.tally.inputs >= wanted {
            let rest = world.at_rest(tasks).await;
            report.left = rest.bytes - first.get_or_insert(rest).bytes;
            assert!(report.left <= LEFT_MAX, "{} bytes are left", report.left);
            assert!(
                rest.descriptors <= first.as_ref().expect("set above").descriptors,
                "{rest:?}, {first:?}"
            );
        }
    }
    report.took = started.elapsed();
    let world = Arc::into_inner(world).expect("all clients have gone");
    tokio::time::timeout(PATIENCE, world.server.stop()).await.expect("the gateway stops");
    report
}

/// Runs one client after another, until the number of inputs is reached.
#[expect(clippy::disallowed_methods, reason = "how long a connection takes is real time")]
async fn client(world: Arc<World>, surface: Surface, seeds: Arc<AtomicU64>, wanted: u64) -> Tally {
    let mut tally = Tally::default();
    while tally.inputs < wanted {
        let seed = seeds.fetch_add(1, Relaxed);
        let started = Instant::now();
        let done = match surface {
            Surface::Http => http::converse(&world, seed, World::request).await,
            Surface::Socket => socket::converse(&world, seed).await,
            Surface::Requests => http::converse(&world, seed, dialect_requests::request).await,
            Surface::Keys => http::converse(&world, seed, key_requests::request).await,
            Surface::Dialect(dialect) => dialect_sockets::converse(&world, dialect, seed).await,
            Surface::Wyoming => wyoming::converse(&world, seed).await,
        };
        let lasted = (started.elapsed(), seed);
        match done {
            Ok(done) => tally.add(Tally { connections: 1, slowest: lasted, ..done }),
            Err(error) => panic!("{error}\n{} (connection 1)", random::replay(surface.test(), seed)),
        }
        // Otherwise the test's recogniser would keep the audio of all of them.
        world.recognizer.forget();
    }
    tally
}

/// Results of many inputs.
#[derive(Default)]
struct Tally {
    inputs: u64,
    connections: u64,
    /// Duration of the slowest connection, with its seed.
    slowest: (Duration, u64),
    /// Number of times that each outcome occurred.
    outcomes: BTreeMap<String, u64>,
}

impl Tally {
    fn note(&mut self, outcome: String) {
        *self.outcomes.entry(outcome).or_default() += 1;
    }

    fn add(&mut self, other: Tally) {
        self.inputs += other.inputs;
        self.connections += other.connections;
        self.slowest = self.slowest.max(other.slowest);
        other
            .outcomes
            .into_iter()
            .for_each(|(outcome, count)| *self.outcomes.entry(outcome).or_default() += count);
    }
}

#[derive(Default)]
struct Report {
    tally: Tally,
    took: Duration,
    /// Growth of the heap after the first batch, in bytes.
    left: i64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { inputs, connections, slowest: (slowest, seed), outcomes } = &self.tally;
        writeln!(f, "{inputs} inputs on {connections} connections in {:.1?}", self.took)?;
        writeln!(f, "slowest connection {slowest:.1?} (seed {seed})")?;
        let (peak, rss) = (METER.peak() >> 10, peak_memory().unwrap_or(0));
        writeln!(f, "heap: {peak} KiB at most, {} bytes left; process: {rss} KiB at most", self.left)?;
        outcomes.iter().try_for_each(|(outcome, count)| writeln!(f, "  {count} {outcome}"))
    }
}

/// Returns the peak resident memory of this process, in KiB.
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
}

/// Resources of a gateway without clients.
#[derive(Clone, Copy, Debug)]
struct Rest {
    bytes: i64,
    descriptors: usize,
}

/// A gateway, and the knowledge of its hostile clients.
struct World {
    server: Server,
    recognizer: Arc<DigestRecognizer>,
    /// One token of each of two projects.
    tokens: [String; 2],
    /// Credentials of a client whose tokens may be spent.
    spare: Credentials,
    recordings: Vec<Vec<u8>>,
    /// Sessions that were opened lately.
    sessions: Mutex<VecDeque<Known>>,
    /// ID and token of the newest task.
    task: Mutex<(String, String)>,
    /// The newest short-lived key.
    key: Mutex<String>,
}

impl World {
    async fn start() -> World {
        let recognizer = Arc::new(DigestRecognizer::new(SEGMENT));
        let options = Options {
            // The limits are tested elsewhere. Here they would hide the code behind them.
            max_failures: 0,
            max_sessions: 5_000,
            demo: true,
            open: Some(OpenAccess { project: "test".to_owned(), networks: OpenAccess::loopback() }),
            // For requests that break off at a point where the gateway can't tell.
            connections: ConnectionOptions {
                header_timeout: Duration::from_secs(3),
                body_timeout: Duration::from_secs(3),
                ..ConnectionOptions::default()
            },
            // Abandoned sessions and tasks must go soon, because there are many of them.
            resume_window: Duration::from_millis(500),
            chunked: ChunkedOptions {
                opening: Duration::from_secs(1),
                gap: Duration::from_secs(1),
                kept: Duration::from_secs(1),
            },
            ..Options::default()
        };
        let wyoming = Some(WyomingAddress::Tcp("127.0.0.1:0".parse().unwrap()));
        let setup = Setup { voices: Tone::voices(), options, wyoming, ..Setup::default() };
        let server = Server::with(recognizer.clone(), setup).await;
        let authority = server.gateway.authority();
        authority.create_project("other").unwrap();
        let token = |project| {
            let minted = authority.create_service_token(project, Terms::default()).unwrap();
            minted.token.expose_secret().to_owned()
        };
        let tokens = ["test", "other"].map(token);
        let NewClient { client_id, client_secret } = authority.create_client("test").unwrap();
        let recordings = ["speech-16k-mono-s16.wav", "speech-8k-mono-mulaw.wav", "speech-16k-mono-voip.opus"];
        let mut recordings: Vec<Vec<u8>> =
            recordings.iter().map(|name| fs::read(sample(name)).unwrap()).collect();
        // A header and some audio are enough to damage.
        recordings.iter_mut().for_each(|file| file.truncate(3_000));
        World {
            server,
            recognizer,
            tokens,
            spare: Credentials { client_id, client_secret },
            recordings,
            sessions: Mutex::default(),
            task: Mutex::default(),
            key: Mutex::default(),
        }
    }

    fn remember(&self, known: Known) {
        let mut sessions = self.sessions.lock().unwrap();
        sessions.truncate(63);
        sessions.push_front(known);
    }

    fn known(&self, dice: &mut Random) -> Option<Known> {
        let sessions = self.sessions.lock().unwrap();
        let which = dice.below(sessions.len().clamp(1, 8));
        sessions.get(which).cloned()
    }

    fn task(&self) -> (String, String) {
        self.task.lock().unwrap().clone()
    }

    /// Checks that a good request and a good session give exactly the expected results.
    async fn check(&self, surface: Surface) {
        let pcm = audio(20_000);
        let expected: Vec<String> = pcm.chunks(SEGMENT).map(digest).collect();
        let wav = voxline_fixtures::formats::wav_s16(16_000, &pcm);
        let recognised = http::ask(self, Request::new("POST", "/asr").under(&self.tokens[0]).body(wav)).await;
        assert_eq!(recognised.unwrap()["result"]["texts"][0]["punctuated_text"], expected.join(" "));

        let token = AccessToken::new(&self.tokens[0].clone().into(), TokenGeneration(0)).unwrap();
        let (mut socket, _) = Socket::start(&self.server, &token).await;
        socket.audio(&pcm, 0, pcm.len() as u64);
        let finals = socket.end(pcm.len() as u64).await;
        assert!(finals.iter().map(|segment| &segment.text).eq(&expected), "{finals:?}");

        if let Surface::Http = surface {
            let create = Request::new("POST", "/asr_stream/create_task").under(&self.tokens[0]);
            let created = http::ask(self, create).await.unwrap();
            let field = |name: &str| created["result"][name].as_str().unwrap().to_owned();
            *self.task.lock().unwrap() = (field("task_id"), field("task_token"));
        }
        if let Surface::Keys = surface {
            let grant = Request::new("POST", "/v1/auth/grant").under(&self.tokens[0]);
            let grant = http::ask(self, grant.body(r#"{"ttl_seconds":3600}"#)).await.unwrap();
            *self.key.lock().unwrap() = grant["access_token"].as_str().unwrap().to_owned();
        }
        // Drops the recordings that the test's recogniser keeps.
        self.recognizer.forget();
    }

    /// Waits until nothing of any client is left: no session, no connection, and no task beyond `tasks`.
    async fn at_rest(&self, tasks: usize) -> Rest {
        let rest = async {
            loop {
                let health: Value = http::ask(self, Request::new("GET", "/healthz")).await.unwrap();
                let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
                let alive = Handle::current().metrics().num_alive_tasks();
                if health["sessions"] == 0 && alive <= tasks {
                    self.sessions.lock().unwrap().clear();
                    self.recognizer.forget();
                    return Rest { bytes: METER.live(), descriptors };
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, rest).await.expect("all that the clients began ends")
    }
}

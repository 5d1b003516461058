//! Settings of a gateway.

mod dialects;

use std::num::NonZero;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

pub use self::dialects::{
    BadVoiceAlias, Dialect, OpenAccess, OpenAiOptions, UnknownDialect, VoiceAlias, WyomingAddress,
};
use crate::http::cors::Origin;
use crate::http::server::ConnectionOptions;
use crate::http::url_host::UrlHost;
use voxline::language::Languages;
use voxline::net::Endpoint;

/// Settings of a gateway that the operator may change.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of recognition threads. The default is the number of threads that the machine runs at once.
    pub threads: NonZero<usize>,
    /// Maximum number of live streaming sessions and tasks of numbered chunks. One more is refused with
    /// status 429. See [`capacity`](crate::capacity).
    pub max_sessions: usize,
    /// Maximum number of recordings and texts in work at once. More are refused with status 429.
    pub max_requests: usize,
    /// Limits of connections, and the proxies in front of them.
    pub connections: ConnectionOptions,
    /// Number of wrong tokens and secrets that a client address (for IPv6, a network of 64 bits) may send
    /// at once; one more is allowed every three seconds. Beyond this limit every request of the address is
    /// refused with status 429, even one with a valid token; only health, metrics, the API description and
    /// the console's pages stay open. 0 allows any number; use 0 behind a proxy that the gateway doesn't
    /// know as [trusted](ConnectionOptions::trusted_proxies).
    pub max_failures: u32,
    /// Time that a session outlives its socket.
    pub resume_window: Duration,
    /// Longest time that sessions may go on after the gateway was told to stop.
    pub drain: Duration,
    /// Base addresses of gateways that take over the sessions of this one when it is told to stop. Clients
    /// are asked to start again there from the final position, while their sessions here still run. Clients
    /// send their tokens only to hosts that they trust, which by default is the host of this gateway at
    /// another port. If the list is empty, sessions end here, as far as the drain time allows.
    pub successors: Vec<Endpoint>,
    /// Deadlines of tasks of numbered chunks.
    pub chunked: ChunkedOptions,
    /// Limits of long recordings, which the dialects of other services take.
    pub recordings: RecordingOptions,
    /// Dialects of other services that the gateway speaks.
    pub dialects: Vec<Dialect>,
    /// Hosts whose addresses clients may name, for recordings that are fetched and callbacks that take
    /// results. A name that leads into a private network needs its addresses in the list, too.
    pub url_hosts: Vec<UrlHost>,
    /// Settings of the dialect of OpenAI.
    pub openai: OpenAiOptions,
    /// Access for clients without tokens, by dialects and on listeners of their own; none if `None`.
    pub open: Option<OpenAccess>,
    /// Languages expected in the audio if neither the client nor its project names one.
    pub languages: Languages,
    /// Origins, other than the gateway's own, whose pages may use the gateway from a browser.
    pub cors_origins: Vec<Origin>,
    /// Allows a socket to go on under a fresh token that its client sends in band. Switch this off behind a
    /// proxy that checks tokens at the handshake: such a proxy sees no later token, and may cut a socket
    /// whose first token has expired.
    pub in_band_auth: bool,
    /// Answers a bad token with status 400, as the documentation prints, instead of 401 or 403, as the
    /// original service did and as clients expect.
    pub documented_status: bool,
    /// Serves the console at `/`: a page to try the gateway with, and to see one's sessions and usage.
    pub console: bool,
    /// Lets `/tts_demo` and `/asr_demo` answer every client, without a token.
    pub demo: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            threads: thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN),
            max_sessions: 64,
            max_requests: 16,
            connections: ConnectionOptions::default(),
            max_failures: 20,
            resume_window: Duration::from_secs(60),
            drain: Duration::from_secs(30),
            successors: Vec::new(),
            chunked: ChunkedOptions::default(),
            recordings: RecordingOptions::default(),
            dialects: Dialect::ALL.to_vec(),
            url_hosts: Vec::new(),
            openai: OpenAiOptions::default(),
            open: None,
            languages: Languages::default(),
            cors_origins: Vec::new(),
            in_band_auth: true,
            documented_status: false,
            console: true,
            demo: false,
        }
    }
}

/// Deadlines of tasks of numbered chunks.
#[derive(Clone, Debug)]
pub struct ChunkedOptions {
    /// Longest wait of a task of numbered chunks for its first chunk.
    pub opening: Duration,
    /// Longest wait of a task for its next chunk, after which the task is done. The documentation says five
    /// seconds.
    pub gap: Duration,
    /// Time that the result of a task is kept after the task is done.
    pub kept: Duration,
}

impl Default for ChunkedOptions {
    fn default() -> ChunkedOptions {
        ChunkedOptions {
            opening: Duration::from_secs(60),
            gap: Duration::from_secs(5),
            kept: Duration::from_secs(10 * 60),
        }
    }
}

/// Limits of long recordings. A recording is stored in a temporary file, which has no name, and is decoded
/// while it is recognised, so its length costs no memory.
#[derive(Clone, Debug)]
pub struct RecordingOptions {
    /// Longest recording.
    pub max_duration: Duration,
    /// Largest recording, in bytes.
    pub max_bytes: u64,
    /// Disk space for all recordings at once, in bytes. A recording that finds none left is refused with
    /// status 429.
    pub disk_bytes: u64,
    /// Directory of the temporary files; the system's, such as `/tmp`, if `None`. It should be on a disk:
    /// some systems keep `/tmp` in memory.
    pub directory: Option<PathBuf>,
}

impl Default for RecordingOptions {
    fn default() -> RecordingOptions {
        RecordingOptions {
            max_duration: Duration::from_secs(4 * 3600),
            // Four hours of WAV with one channel at 48 kHz take 1.4 GB.
            max_bytes: 2 << 30,
            disk_bytes: 8 << 30,
            directory: None,
        }
    }
}

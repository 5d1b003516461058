//! Settings of a gateway.

use std::num::NonZero;
use std::thread;
use std::time::Duration;

use ipnet::IpNet;

use crate::http::cors::Origin;
use crate::http::server::ServerOptions;
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
    /// Maximum number of open connections, without those that have become WebSockets. One more connection
    /// takes the place of a connection without a request under a valid token; if there is none, the new
    /// connection waits until another one ends. The default, together with the sockets of the default
    /// number of sessions, fits into the 1,024 file descriptors that a process commonly has, and leaves
    /// some for the store and for engines.
    pub max_connections: usize,
    /// Maximum number of these connections for one client address (for IPv6, a network of 64 bits) while
    /// other addresses have none. The value is capped at three quarters of all connections, and one more
    /// connection is closed at once. The share of an address shrinks as free connections become few, so
    /// that some are left for new addresses. Beyond its share, an address takes the places of addresses
    /// that have more idle connections than it has. 0 allows any number and closes no connection in favour
    /// of another address; use 0 behind a proxy that the gateway doesn't know as
    /// [trusted](Options::trusted_proxies).
    pub max_connections_per_address: usize,
    /// Longest time for a TLS handshake and for the request line and headers to arrive, longest wait for
    /// the next request on a connection, and longest time for the body of a token request.
    pub header_timeout: Duration,
    /// Longest time for a whole recording or text to arrive.
    pub body_timeout: Duration,
    /// Longest time that an answer waits for its client to read more of it. The connection is then closed.
    /// The same limit applies to a WebSocket, whose session may be resumed.
    pub write_timeout: Duration,
    /// Number of wrong tokens and secrets that a client address (for IPv6, a network of 64 bits) may send
    /// at once; one more is allowed every three seconds. Beyond this limit every request of the address is
    /// refused with status 429, even one with a valid token; only health, metrics, the API description and
    /// the console's pages stay open. 0 allows any number; use 0 behind a proxy that the gateway doesn't
    /// know as [trusted](Options::trusted_proxies).
    pub max_failures: u32,
    /// Networks of proxies that are trusted to name the addresses of their clients, by a PROXY protocol
    /// version 2 header at the start of a connection, by `X-Forwarded-For` or by `Forwarded` (RFC 7239).
    /// All limits by address, the networks of service tokens and the log then refer to the client, and a
    /// request with a malformed header is refused. A trusted proxy must set one of these headers itself,
    /// and must not pass on another one as its client wrote it. The headers are ignored if any other peer
    /// sends them.
    pub trusted_proxies: Vec<IpNet>,
    /// Time that a session outlives its socket.
    pub resume_window: Duration,
    /// Longest time that sessions may go on after the gateway was told to stop.
    pub drain: Duration,
    /// Base addresses of gateways that take over the sessions of this one when it is told to stop. Clients
    /// are asked to start again there from the final position, while their sessions here still run. Clients
    /// send their tokens only to hosts that they trust, which by default is the host of this gateway at
    /// another port. If the list is empty, sessions end here, as far as the drain time allows.
    pub successors: Vec<Endpoint>,
    /// Longest wait of a task of numbered chunks for its first chunk.
    pub task_opening: Duration,
    /// Longest wait of a task for its next chunk, after which the task is done. The documentation says five
    /// seconds.
    pub task_gap: Duration,
    /// Time that the result of a task is kept after the task is done.
    pub task_kept: Duration,
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
            max_connections: 800,
            max_connections_per_address: 600,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(120),
            write_timeout: Duration::from_secs(60),
            max_failures: 20,
            trusted_proxies: Vec::new(),
            resume_window: Duration::from_secs(60),
            drain: Duration::from_secs(30),
            successors: Vec::new(),
            task_opening: Duration::from_secs(60),
            task_gap: Duration::from_secs(5),
            task_kept: Duration::from_secs(10 * 60),
            languages: Languages::default(),
            cors_origins: Vec::new(),
            in_band_auth: true,
            documented_status: false,
            console: true,
            demo: false,
        }
    }
}

impl Options {
    /// Returns the settings of the HTTP server.
    pub(crate) fn server(&self) -> ServerOptions<'_> {
        ServerOptions {
            max_connections: self.max_connections,
            max_connections_per_address: self.max_connections_per_address,
            header_timeout: self.header_timeout,
            write_timeout: self.write_timeout,
            trusted_proxies: &self.trusted_proxies,
        }
    }
}

//! A gateway in a process of its own, which can be killed and restarted at the same address. The process is
//! this test binary, run with the one test that serves.

use std::io::{self, BufRead, BufReader, Lines, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use voxline::auth::{Credentials, OAuthClient, TokenProvider, Vault};
use voxline::clock::SystemClock;
use voxline::net::{Endpoint, http_client};
use voxline_gateway::authority::{Authority, NewClient};
use voxline_gateway::{Engines, Gateway, Options, serve};
use voxline_testing::DigestRecognizer;

use super::log;
use super::server::endpoint;

/// Test that is the gateway: see [`serve_until_told`].
const SERVING: &str = "kills::gateway_process";
/// Line that the gateway prints once it serves.
const READY: &str = "gateway process is listening";
const STATE: &str = "VOXLINE_GATEWAY_PROCESS_STATE";
const ADDRESS: &str = "VOXLINE_GATEWAY_PROCESS_ADDRESS";
/// Longest time that the gateway's sessions may go on once it is told to stop.
pub(crate) const DRAIN: Duration = Duration::from_secs(10);
/// Half a second, so that a session has many finals.
pub(crate) const SEGMENT: usize = 8_000;

/// The gateway, running or not.
pub(crate) struct GatewayProcess {
    pub(crate) address: SocketAddr,
    pub(crate) credentials: Credentials,
    directory: TempDir,
    /// Process of the gateway, with the pipe that tells it to end and the output that it prints. The output
    /// is kept because a process that prints into a closed pipe dies.
    running: Option<(Child, ChildStdin, Lines<BufReader<ChildStdout>>)>,
}

impl GatewayProcess {
    /// Starts a gateway with one project and an address of its own.
    pub(crate) fn start() -> GatewayProcess {
        let directory = tempfile::tempdir().unwrap();
        let authority = open(&directory.path().join("state"));
        let NewClient { client_id, client_secret } = authority.create_project("test").unwrap();
        drop(authority);
        let credentials = Credentials { client_id, client_secret };
        let mut gateway = GatewayProcess { address: free_address(), credentials, directory, running: None };
        gateway.restart();
        gateway
    }

    /// Runs the gateway again, at its address and with its state on disk, and waits until it listens.
    pub(crate) fn restart(&mut self) {
        assert!(self.running.is_none(), "it runs");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", SERVING, "--ignored", "--nocapture"])
            .env(STATE, self.directory.path().join("state"))
            .env(ADDRESS, self.address.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(
            lines.by_ref().any(|line| line.unwrap().ends_with(READY)),
            "the gateway ended before it listened"
        );
        self.running = Some((child, stdin, lines));
    }

    /// Kills the gateway with SIGKILL.
    pub(crate) fn kill(&mut self) {
        let (mut child, _stdin, _lines) = self.running.take().expect("it runs");
        assert!(child.try_wait().unwrap().is_none(), "the gateway ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks the gateway to stop with SIGTERM.
    pub(crate) fn begin_stop(&self) {
        let (child, ..) = self.running.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), Signal::TERM).unwrap();
    }

    /// Waits until the gateway has stopped.
    pub(crate) fn stopped(&mut self) {
        let (mut child, _stdin, _lines) = self.running.take().expect("it runs");
        assert!(child.wait().unwrap().success(), "the gateway failed when it was told to stop");
    }

    /// Returns the process ID of the gateway.
    pub(crate) fn pid(&self) -> u32 {
        self.running.as_ref().expect("it runs").0.id()
    }

    /// Returns the gateway's state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        endpoint(self.address)
    }

    /// Creates a client with tokens of its own.
    pub(crate) fn tokens(&self) -> TokenProvider {
        let endpoint = self.endpoint();
        let vault = Vault::new(&self.directory.path().join("tokens"), &endpoint, &self.credentials.client_id);
        let clock = Arc::new(SystemClock::new());
        let client = OAuthClient::new(http_client().unwrap(), endpoint, self.credentials.clone(), clock);
        TokenProvider::oauth(client, vault)
    }
}

/// Kills the process. A process left by a failed test would hold the test's output open.
impl Drop for GatewayProcess {
    fn drop(&mut self) {
        if let Some((child, ..)) = &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Returns an address that stays free while no process listens on it: its port is below those that the
/// kernel assigns by itself, and no other test of this process gets it.
fn free_address() -> SocketAddr {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id() % 10_000;
    let candidates = std::iter::repeat_with(|| {
        let number = first + TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(10_000 + number % 20_000).expect("below 30,000");
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    });
    candidates
        .take(20_000)
        .find(|address| std::net::TcpListener::bind(address).is_ok())
        .expect("a port is free")
}

fn open(state: &Path) -> Authority {
    Authority::open(state, Duration::from_secs(3600), Arc::new(SystemClock::new())).unwrap()
}

/// Serves as the gateway, in the process that was started for it, until the process is killed or its parent
/// is gone.
#[expect(clippy::disallowed_methods, reason = "what the starter has to say comes by the environment")]
#[expect(clippy::print_stdout, reason = "the starter waits for it")]
pub(crate) async fn serve_until_told() {
    log::as_told();
    let told = |name| std::env::var_os(name).expect("only GatewayProcess runs this");
    let state = PathBuf::from(told(STATE));
    let address: SocketAddr = told(ADDRESS).to_str().unwrap().parse().unwrap();
    let engines =
        Engines { recognizer: Some(Arc::new(DigestRecognizer::new(SEGMENT))), ..Engines::default() };
    // Tests check by the hundred whether tokens are dead, and hold a hundred sessions.
    let options = Options { max_failures: 0, max_sessions: 128, drain: DRAIN, ..Options::default() };
    let gateway = Arc::new(Gateway::new(open(&state), engines, options));
    let listener = TcpListener::bind(address).await.unwrap();
    let mut terminated = signal(SignalKind::terminate()).unwrap();
    let shutdown = CancellationToken::new();
    let serving = serve(listener, gateway, shutdown.clone());
    println!("{READY}");
    let orphaned = tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new()));
    let stopping = async {
        terminated.recv().await;
        shutdown.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        served = serving => served.unwrap(),
        () = stopping => {}
        _ = orphaned => {}
    }
    // The thread that reads standard input may still wait for the parent.
    std::process::exit(0);
}

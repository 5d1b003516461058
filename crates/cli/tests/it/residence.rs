//! Memory of a client whose service is slow or accepts nothing for a while. Of an hour of audio, no more is
//! in memory than the replay buffer may hold.

use std::fs;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use voxline_gateway::authority::Terms;
use voxline_testing::{Fault, FaultProxy, NullRecognizer};

use crate::cli::{Place, path, text};
use voxline_fixtures::gateway::server::{Server, endpoint};

/// Size of an hour of audio at 16 kHz.
const HOUR_BYTES: u64 = 3_600 * 16_000 * 2;

/// Largest resident memory of the process: the program's own pages and heap (some 10 MB), five minutes of
/// replay (10 MB), as much again in flight in queues and the socket, and room for another allocator. An hour
/// of audio is 115 MB.
const BOUND_KIB: u64 = 40 * 1024;

/// A peer that stalls after a tenth of the hour, and one that takes the rest slowly.
const FAULTS: [Fault; 2] = [
    Fault::Stall { after: 12_000_000 },
    Fault::Trickle { bytes: 128 * 1024, every: Duration::from_millis(10) },
];

/// Returns the peak resident memory of the process in KiB, or `None` once it has ended.
fn peak(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[allow(clippy::print_stdout, reason = "the figure that is promised")]
async fn an_hour_of_audio_and_a_peer_that_stalls_need_little_memory() {
    let place = Place::new();
    let server = Server::start(Arc::new(NullRecognizer::new(80_000))).await;
    let token = server.gateway.authority().create_service_token("test", Terms::default()).unwrap();
    let token = place.secret("token", token.token.expose_secret());
    // Silence as a sparse file, which takes no room on the disk.
    let hour = place.file("hour.raw", "");
    fs::File::options().write(true).open(&hour).unwrap().set_len(HOUR_BYTES).unwrap();
    let proxy = FaultProxy::with_faults(server.address, FAULTS).await.unwrap();
    let endpoint = endpoint(proxy.address()).to_string();
    let mut command =
        place.command(&["transcribe", path(&hour), "--raw", "s16le:16000", "--format", "jsonl"]);
    command.args(["--endpoint", &endpoint, "--token-file", path(&token)]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut most = 0;
    let status = loop {
        most = most.max(peak(&child).unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let said = child.wait_with_output().unwrap().stderr;
    println!("peak memory {most} KiB of {BOUND_KIB}; {}", text(&said));
    // The null recogniser gives no text, which the program reports as nothing recognised.
    assert_eq!(status.code(), Some(1), "{}", text(&said));
    assert_eq!(proxy.connections(), FAULTS.len(), "the stall was not noticed");
    assert!((1..=BOUND_KIB).contains(&most), "{most} KiB");
    server.stop().await;
}

//! Barge-in: cancellation of speech.

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::{Stage, options, prose};
use voxline_fixtures::gateway::server::Setup;
use voxline_fixtures::gateway::voice::Tone;

/// Longest wait. Everything here takes less.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest time from a cancellation to the end of the stream, as the issue requires.
const AT_ONCE: Duration = Duration::from_millis(50);

/// A proxy before the gateway that reports when the client's end of a connection has closed.
struct Door {
    address: SocketAddr,
    closed: mpsc::UnboundedReceiver<Instant>,
    _connections: JoinSet<()>,
}

impl Door {
    #[expect(clippy::disallowed_methods, reason = "when a connection closes is what is measured")]
    async fn before(upstream: SocketAddr) -> Door {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, closed) = mpsc::unbounded_channel();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let tell = tell.clone();
                connections.spawn(async move {
                    let mut server = TcpStream::connect(upstream).await.unwrap();
                    let (mut from_client, mut to_client) = client.split();
                    let (mut from_server, mut to_server) = server.split();
                    tokio::select! {
                        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
                        // A write to a client that has gone fails.
                        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
                    }
                    let _ = tell.send(Instant::now());
                });
            }
        });
        Door { address, closed, _connections: accepting }
    }

    /// Waits for the next connection to close, and returns the time of that.
    async fn closed(&mut self) -> Instant {
        timeout(PATIENCE, self.closed.recv()).await.expect("it is never closed").unwrap()
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "the figures that it prints")]
async fn cancelled_speech_ends_at_once_for_listener_and_service() {
    let stage = Stage::new().await;
    let (mut ended, mut closed) = (Vec::new(), Vec::new());
    for run in 0..21 {
        let mut door = Door::before(stage.server.address).await;
        let mut speech = stage.client_at(door.address).speak(&prose(10_000), &options());
        let handle = speech.handle();
        let (begun, has_begun) = oneshot::channel();
        let mut listening = JoinSet::new();
        listening.spawn(async move {
            let mut frames = 0;
            let mut begun = Some(begun);
            while let Some(piece) = speech.next().await {
                frames += piece.unwrap().len() as u64 / 2;
                // Each run cancels further into the speech.
                if frames > run * 50_000 {
                    begun.take().map(|begun| begun.send(()));
                }
            }
            (frames, Instant::now())
        });
        has_begun.await.unwrap();
        let cancelled = Instant::now();
        let handed_out = handle.cancel();
        let (frames, end) = listening.join_next().await.unwrap().unwrap();
        assert_eq!((handed_out, handle.cancel(), handle.is_cancelled()), (frames, frames, true));
        assert!(frames < 24_000 * 60 * 10);
        ended.push(end - cancelled);
        closed.push(door.closed().await - cancelled);
    }
    let (ended, closed) = (median(&mut ended), median(&mut closed));
    println!(
        "cancelled: the stream ended after {ended:?}, its first connection after {closed:?} (medians of 21)"
    );
    assert!(ended <= AT_ONCE && closed <= AT_ONCE, "{ended:?}, {closed:?}");
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn speech_that_nobody_polls_or_that_is_dropped_closes_its_connections() {
    let stage = Stage::new().await;
    for dropped in [false, true] {
        let mut door = Door::before(stage.server.address).await;
        let mut speech = stage.client_at(door.address).speak(&prose(60_000), &options());
        speech.next().await.unwrap().unwrap();
        let handle = speech.handle();
        if dropped {
            drop(speech);
            door.closed().await;
        } else {
            // The listener is a player that is busy and does not poll the stream.
            handle.cancel();
            door.closed().await;
            assert!(speech.next().await.is_none() && speech.next().await.is_none());
            assert_eq!(handle.handed_out(), 2_400);
        }
    }
    // Cancelled before anything was requested.
    let mut speech = stage.client().speak(&prose(100), &options());
    assert_eq!(speech.handle().cancel(), 0);
    assert!(speech.next().await.is_none());
    // After the cancellation of resampled speech, no audio follows.
    let mut speech = stage.client().speak(&prose(10_000), &options()).resampled(8_000).unwrap();
    speech.next().await.unwrap().unwrap();
    let frames = speech.handle().cancel();
    assert!(speech.next().await.is_none() && frames == speech.handle().handed_out());
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_asked_for_than_what_is_heard_and_what_follows() {
    let stage = Stage::with(Setup { voices: Tone::voices(), ..Setup::default() }).await;
    let authority = stage.server.gateway.authority();
    let paid_for =
        || -> u64 { authority.usage(None).unwrap().iter().map(|usage| usage.total.characters).sum() };
    let text = prose(20_000);
    let mut speech = stage.client().speak(&text, &options());
    let (mut frames, mut ahead) = (0, 0);
    while let Some(piece) = speech.next().await {
        // The tone has 100 frames for each character.
        ahead = ahead.max(paid_for() - frames / 100);
        frames += piece.unwrap().len() as u64 / 2;
    }
    // Two parts of 600 characters, with up to one more sentence each, and the space between sentences,
    // which is not spoken.
    assert!((600..1_800).contains(&ahead), "{ahead} characters");
    assert!(text.len() as u64 - paid_for() < 1_000, "only the space between parts is left out");
    drop(speech);
    stage.server.stop().await;
}

//! Graceful shutdown: sockets and chunked sessions are told to end, and closed when the time to drain is
//! over.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// Progress of a graceful shutdown, and the clients that it waits for.
pub(crate) struct Shutdown {
    /// Longest time that sessions may go on after the shutdown began.
    time: Duration,
    /// Tokio tasks, each of which serves a socket or supervises a chunked session.
    clients: TaskTracker,
    /// Notified when one of these has ended, so that its usage is written.
    pub(crate) client_ended: Arc<Notify>,
    /// Cancelled when the gateway begins to drain; no new sockets are accepted from then on.
    pub(crate) draining: CancellationToken,
    /// Time at which sockets will be closed. It is set before `draining` is cancelled.
    drain_ends: OnceLock<Instant>,
    /// Cancelled when all sockets must close.
    pub(crate) closing: CancellationToken,
}

impl Shutdown {
    /// Creates a shutdown that has not begun, and that will let sessions go on for `time`.
    pub(crate) fn new(time: Duration) -> Shutdown {
        Shutdown {
            time,
            clients: TaskTracker::new(),
            client_ended: Arc::default(),
            draining: CancellationToken::new(),
            drain_ends: OnceLock::new(),
            closing: CancellationToken::new(),
        }
    }

    /// Serves a client that the shutdown waits for, in the span of the current request.
    pub(crate) fn spawn(&self, client: impl Future<Output = ()> + Send + 'static) {
        self.clients.spawn(self.noted(client).in_current_span());
    }

    /// Returns the service of a client that the shutdown waits for, to be run by the caller.
    pub(crate) fn track<F: Future<Output = ()> + Send + 'static>(
        &self,
        client: F,
    ) -> impl Future<Output = ()> + Send + use<F> {
        self.clients.track_future(self.noted(client))
    }

    /// Returns the service of a client, whose end is notified.
    fn noted<F: Future<Output = ()> + Send + 'static>(
        &self,
        client: F,
    ) -> impl Future<Output = ()> + Send + use<F> {
        let client_ended = self.client_ended.clone();
        async move {
            client.await;
            client_ended.notify_one();
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Returns the time for which the sockets of a draining gateway still serve.
    pub(crate) fn drain_left(&self, now: Instant) -> Duration {
        let left = |ends: &Instant| ends.saturating_duration_since(now);
        self.drain_ends.get().map_or(self.time, left)
    }

    /// Drains the gateway: announces the shutdown to clients, waits for sessions to end for as long as the
    /// options allow, then closes their sockets.
    #[expect(clippy::disallowed_methods, reason = "the time to drain is real time")]
    pub(crate) async fn drain(&self) {
        if let Some(ends) = Instant::now().checked_add(self.time) {
            self.drain_ends.get_or_init(|| ends);
        }
        self.draining.cancel();
        self.clients.close();
        let (began, seconds) = (Instant::now(), self.time.as_secs());
        tracing::info!(target: "voxline::operation", sockets = self.clients.len(), seconds, "drain started");
        let all_ended = tokio::time::timeout(self.time, self.clients.wait()).await;
        let closed = all_ended.map_or_else(|_| self.clients.len(), |()| 0);
        if closed > 0 {
            tracing::warn!(sockets = closed, "drain timed out, closing the remaining sockets");
        }
        self.closing.cancel();
        self.clients.wait().await;
        let seconds = began.elapsed().as_secs();
        tracing::info!(target: "voxline::operation", closed, seconds, "drain finished");
    }
}

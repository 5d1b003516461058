//! Supervision of a socket: the end of a client that is gone, of a revoked token, or of a gateway that stops.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::manager::SessionManager;
use crate::http::server::Connection;
use voxline::transport::{Message, Wire};

/// Time without any message after which a ping is sent.
const PING_AFTER: Duration = Duration::from_secs(20);
/// Time without any message after which the socket counts as dead.
const DEAD_AFTER: Duration = Duration::from_secs(60);

/// Reason for the close of a socket whose client is gone.
pub(super) const UNANSWERED: &str = "nothing came from the client, not even an answer to a ping";
/// Reason for the close of a socket when the time to drain is over.
pub(super) const STOPPING: &str = "the gateway stops";

/// Signs of life of a client.
pub(super) struct Liveness {
    last_message: Instant,
    /// True if a ping was sent since the last message.
    pinged: bool,
}

impl Liveness {
    /// Starts with a message at `now`.
    pub(super) fn since(now: Instant) -> Liveness {
        Liveness { last_message: now, pinged: false }
    }

    /// Returns the time at which the client must be pinged, or counts as dead if it was.
    pub(super) fn deadline(&self) -> Instant {
        self.last_message + if self.pinged { DEAD_AFTER } else { PING_AFTER }
    }

    /// Pings the client at the deadline. Returns false if the client was pinged before, and is dead.
    pub(super) fn expire<Io: Connection>(&mut self, wire: &mut Wire<Io>) -> bool {
        if self.pinged {
            return false;
        }
        self.pinged = true;
        wire.send(Message::Ping(axum::body::Bytes::new()));
        true
    }
}

/// Notice to all sockets of the gateway.
pub(super) enum Notice {
    /// A token was revoked, perhaps that of this socket.
    Revocation,
    /// The gateway begins to drain.
    Drain,
    /// The time to drain is over.
    Close,
}

/// Notices of the authority and of the shutdown to one socket.
pub(super) struct Supervision<'a> {
    manager: &'a SessionManager,
    revocations: watch::Receiver<()>,
    is_draining: bool,
}

impl<'a> Supervision<'a> {
    /// Subscribes to the notices, for a socket whose token was checked before.
    pub(super) fn new(manager: &'a SessionManager) -> Supervision<'a> {
        let mut revocations = manager.authority.revocations();
        // Revocations between the check of the token and this subscription are not notified, so check once
        // more.
        revocations.mark_changed();
        Supervision { manager, revocations, is_draining: false }
    }

    /// Waits for the next notice. Cancel safe.
    pub(super) async fn notice(&mut self) -> Notice {
        let shutdown = &self.manager.shutdown;
        tokio::select! {
            changed = self.revocations.changed() => {
                changed.expect("the gateway holds the authority");
                Notice::Revocation
            }
            () = shutdown.draining.cancelled(), if !self.is_draining => {
                self.is_draining = true;
                Notice::Drain
            }
            () = shutdown.closing.cancelled() => Notice::Close,
        }
    }
}

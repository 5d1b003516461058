//! Bugs that tests switch on, to see that the fault schedules catch them (feature `test-util`).

/// A way to lose or repeat audio, or to trouble a peer, that others have shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// What was accepted while there was no connection counts as sent.
    DeliveredBeforeSent,
    /// The chunk that was under way when a connection died is not sent again.
    ChunkInFlightForgotten,
    /// A resumed session goes on at `sent`, not at `received`.
    ReplayFromSent,
    /// A connection resets the back-off by being made, not by staying healthy.
    BackoffResetOnConnect,
    /// A flush that was sent on a connection that died is not sent again.
    FlushForgotten,
    /// All sessions that share a token replace it at the same moment.
    NoJitter,
}

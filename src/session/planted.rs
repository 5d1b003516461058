//! Bugs that tests switch on, to check that the fault schedules catch them (feature `test-util`).

/// A planted bug, of a kind that real clients have shipped: one that loses or repeats audio, or overloads
/// a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Audio accepted while there is no connection counts as sent.
    DeliveredBeforeSent,
    /// The chunk in flight when a connection dies is not sent again.
    ChunkInFlightForgotten,
    /// A resumed session continues at `sent`, not at `received`.
    ReplayFromSent,
    /// A connection resets the backoff when it is made, not when it has stayed healthy.
    BackoffResetOnConnect,
    /// A flush sent on a connection that died is not sent again.
    FlushForgotten,
    /// All sessions that share a token replace it at the same moment.
    NoJitter,
}

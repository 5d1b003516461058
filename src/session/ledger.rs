//! The account of a session.

/// Where every frame went, and what it took. Of a session that ended well, `accepted` equals `recognised`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Frames taken from the source.
    pub accepted: u64,
    /// Frames covered by final segments.
    pub recognised: u64,
    /// Final segments.
    pub finals: u64,
    /// Times the connection was lost and found again.
    pub reconnects: u64,
    /// Times the peer refused a token and a fresh one was fetched.
    pub token_refreshes: u64,
    /// Frames sent more than once.
    pub replayed: u64,
}

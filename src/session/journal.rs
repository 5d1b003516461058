//! State that a session leaves behind so that another process can resume it.

use std::io;

use serde::{Deserialize, Serialize};

use crate::audio::{AudioChunk, FramePos};
use crate::protocol::Secret;
use crate::transcript::TranscriptEvent;

/// The session on the server that carries this session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerSession {
    /// Name of the server's session.
    pub name: String,
    /// Proof that the server's session belongs to this client.
    pub resume_key: Secret,
    /// Index, in this session, of the first final of the server's session.
    pub first_index: u64,
    /// Base addresses that the service named for the server's session; empty if the session is at the
    /// configured address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
}

/// A journal of a session's progress, written before each event is emitted, so that a later process can
/// resume from there. The methods are called between two messages of the peer, so they should not take long.
pub trait Journal: Send {
    /// Records that `server` carries the session from now on.
    ///
    /// # Errors
    /// Returns an [`io::Error`] if the record can't be written; the error ends the session.
    fn record_server(&mut self, server: &ServerSession) -> io::Result<()>;

    /// Records an event that is about to be emitted.
    ///
    /// # Errors
    /// Returns an [`io::Error`] if the record can't be written; the error ends the session.
    fn record_event(&mut self, event: &TranscriptEvent) -> io::Result<()>;
}

/// The point at which an earlier process left a session. The default is a session that has not begun.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    /// Position below which every frame is final or in a gap.
    pub final_: FramePos,
    /// Index of the next final.
    pub next_index: u64,
    /// Number of frames below `final_` that are in gaps.
    pub gaps: u64,
    /// Recogniser context at `final_`: the one of the latest final that had any.
    pub context: Option<String>,
    /// The server's session, which may still be alive.
    pub server: Option<ServerSession>,
    /// Audio above `final_` that may have been sent already, as far as it is still available. If audio
    /// that was sent is missing here, the server's session is given up and a new one starts at `final_`.
    pub replay: Vec<AudioChunk>,
}

//! What a session must leave behind to be taken up again by another process.

use std::io;

use serde::{Deserialize, Serialize};

use super::protocol::Secret;
use crate::audio::{AudioChunk, FramePos};
use crate::transcript::TranscriptEvent;

/// The server's session that ours is carried by.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerSession {
    /// Its name.
    pub name: String,
    /// The proof that it is ours.
    pub resume_key: Secret,
    /// Our index of its first final.
    pub first_index: u64,
    /// The base addresses that the service named for it, where it is not at the one configured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
}

/// Takes down what a session comes to, before anybody else is told: what a later process needs to go on from there.
/// Called between two messages of the peer, so it should not take long.
pub trait Journal: Send {
    /// The session is carried by this session of the server from now on.
    ///
    /// # Errors
    /// Where it can't be taken down, which ends our session.
    fn opened(&mut self, server: &ServerSession) -> io::Result<()>;

    /// The user is about to be told this.
    ///
    /// # Errors
    /// Where it can't be taken down, which ends our session.
    fn told(&mut self, event: &TranscriptEvent) -> io::Result<()>;
}

/// Where an earlier process left a session. The default is a session that has not begun.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    /// Everything below is final or in a gap.
    pub final_: FramePos,
    /// The index of the next final.
    pub next_index: u64,
    /// Frames in gaps, of those below `final_`.
    pub gaps: u64,
    /// The recogniser's context at `final_`: the latest that a final brought.
    pub context: Option<String>,
    /// The server's session, which may be alive still.
    pub server: Option<ServerSession>,
    /// The audio above `final_` that may have been sent already, as far as it is still there. What was sent and is
    /// missing here costs the server's session: a new one starts at `final_`.
    pub replay: Vec<AudioChunk>,
}

//! Violations of the protocol by the peer.

use super::{MAX_CONTEXT_BYTES, MAX_SESSION_NAME};
use crate::audio::{FramePos, FrameRange};
use crate::error::Cause;

/// A violation of the protocol by the peer, or by the adapter that speaks the peer's own protocol. It ends
/// the session: a peer that miscounts audio can't be trusted with more of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A message that can't be parsed.
    #[error("message can't be read")]
    Unreadable {
        /// Error of the parser: a `serde_json::Error`, unless an adapter has one of its own.
        source: Cause,
    },
    /// A reply to the end of the audio that is a partial result, where the last final is due.
    #[error("the last reply is a partial result")]
    LastPartial,
    /// A binary frame, although the protocol has none in this direction.
    #[error("peer sent a binary frame")]
    BinaryFrame,
    /// A reply to no message, in a protocol with one reply for each message.
    #[error("peer sent a reply to no message")]
    UnexpectedReply,
    /// A message that may only follow `ready`.
    #[error("{message} does not belong before ready")]
    BeforeReady {
        /// Type of the message.
        message: &'static str,
    },
    /// A `ready` with a name too long to resume the session by.
    #[error("ready names a session in {bytes} bytes, expected at most {MAX_SESSION_NAME}")]
    SessionName {
        /// Length of the name, in bytes.
        bytes: usize,
    },
    /// A `ready` for another session than the resumed one.
    #[error("resumed session is called {session}")]
    OtherSession {
        /// Name of the session in `ready`.
        session: String,
    },
    /// A `ready` whose `received` lies outside of the audio that was sent.
    #[error("ready says received {received}, but {sent} was sent")]
    ReadyPosition {
        /// Position in `ready`.
        received: FramePos,
        /// Audio above `final` that was sent to the session.
        sent: FrameRange,
    },
    /// A `ready` with an empty window.
    #[error("ready allows no audio on the way")]
    NoWindow,
    /// A `ready` that allows no audio message with as much as one frame.
    #[error("ready allows {bytes} bytes of audio, too few for one frame")]
    MessageLimit {
        /// Longest audio message that the peer takes, in bytes.
        bytes: usize,
    },
    /// An acknowledgement of audio that was not sent.
    #[error("ack says received {received}, but only {sent} were sent")]
    AckPosition {
        /// Position in the acknowledgement.
        received: FramePos,
        /// Position up to which audio was sent.
        sent: FramePos,
    },
    /// A final out of order.
    #[error("final {index} arrived, but {next} is the next")]
    FinalIndex {
        /// Index of the final.
        index: u64,
        /// Index of the next final.
        next: u64,
    },
    /// A final that doesn't start where the one before ended, or covers audio that was not sent.
    #[error("final {index} covers {start}..{end}, but it should start at {from} and end by {sent}")]
    FinalRange {
        /// Index of the final.
        index: u64,
        /// Start of the final.
        start: FramePos,
        /// End of the final.
        end: FramePos,
        /// Position at which the final should start.
        from: FramePos,
        /// Position up to which audio was sent.
        sent: FramePos,
    },
    /// A final over a gap.
    #[error("final {index} covers {range}, part of which was never sent")]
    FinalOverGap {
        /// Index of the final.
        index: u64,
        /// Frames of the final.
        range: FrameRange,
    },
    /// A final with a context over the limit.
    #[error("final {index} has a context of {bytes} bytes, the limit is {MAX_CONTEXT_BYTES}")]
    ContextSize {
        /// Index of the final.
        index: u64,
        /// Size of the context.
        bytes: usize,
    },
    /// An end of the session before everything is final, or one that counts other results than arrived.
    #[error(
        "done says {frames} frames in {finals} finals, but {arrived} finals cover {covered} of {end} frames"
    )]
    Done {
        /// End of the timeline in `done`.
        frames: FramePos,
        /// Number of finals in `done`.
        finals: u64,
        /// Number of finals that arrived.
        arrived: u64,
        /// Position up to which finals arrived.
        covered: FramePos,
        /// End of the timeline.
        end: FramePos,
    },
}

//! Transcripts: events of a recognition session, and writers that turn them into files.

mod merge;
mod subtitles;
mod writer;

use serde::{Deserialize, Serialize};

pub use merge::Merge;
pub use subtitles::Subtitles;
pub use writer::{Format, Writer, WriterError};

use crate::audio::{FramePos, FrameRange};

/// A committed segment of the transcript. Segments are contiguous: each starts where the one before, or a
/// gap after it, ended; the first starts at the session's origin. Silence belongs to a segment too, whose
/// text is empty if nothing was said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FinalSegment {
    /// Index of the segment, from 0.
    pub index: u64,
    /// Frames that the segment covers.
    pub range: FrameRange,
    /// Text of the segment.
    pub text: String,
    /// Language in which the segment was recognised, if the recogniser reports it.
    pub language: Option<String>,
    /// Confidence of the recogniser, 0 to 1, if reported.
    pub confidence: Option<f32>,
    /// Words of the text in order, if the recogniser reports them.
    #[serde(default)]
    pub words: Vec<Word>,
    /// State that the recogniser needs to continue after this segment as if it had not stopped, opaque to
    /// all others. If absent, the previous context stays in force. A [`Journal`](crate::session::Journal)
    /// keeps the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

/// A word and its position.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// Frames that the word covers, within those of its segment.
    #[serde(flatten)]
    pub range: FrameRange,
    /// The word, including adjacent punctuation.
    pub text: String,
    /// Confidence of the recogniser in the word, 0 to 1.
    pub confidence: f32,
}

/// An event that a session reports to its user. Events are in order.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TranscriptEvent {
    /// A partial result for the text after the last final segment; a later event replaces it.
    Partial {
        /// Index that the final segment will have.
        segment: u64,
        /// Revision of the partial result within the segment, from 0.
        revision: u64,
        /// Frames that the partial result covers.
        range: FrameRange,
        /// Text of the partial result.
        text: String,
    },
    /// A committed segment, which will not change and is reported once.
    Final(FinalSegment),
    /// Frames that were dropped on purpose or lost by the source, and will never be recognised.
    Gap {
        /// Frames that were lost.
        range: FrameRange,
    },
    /// A new connection after the earlier one was lost.
    Reconnected {
        /// Position from which audio is sent again.
        from: FramePos,
    },
    /// End of the session: every frame is final or in a gap, and nothing follows.
    End {
        /// Number of frames of the session.
        frames: u64,
        /// Number of final segments.
        finals: u64,
    },
}

impl TranscriptEvent {
    /// Returns the text of a final segment, unless it is empty.
    #[must_use]
    pub fn final_text(&self) -> Option<&str> {
        match self {
            TranscriptEvent::Final(segment) if !segment.text.is_empty() => Some(&segment.text),
            _ => None,
        }
    }
}

//! What comes back: events of a recognition session, and writers that turn them into files.

mod merge;
mod subtitles;
mod writer;

use serde::{Deserialize, Serialize};

pub use merge::Merge;
pub use subtitles::Subtitles;
pub use writer::{Format, Writer, WriterError};

use crate::audio::{FramePos, FrameRange};

/// A committed piece of the transcript. Segments are contiguous: each starts where the one before ended, the first
/// at the session's origin; silence belongs to a segment too, with an empty text where nothing was said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FinalSegment {
    /// Its number, from 0.
    pub index: u64,
    /// The frames it covers.
    pub range: FrameRange,
    /// What was said.
    pub text: String,
    /// The language it was recognised in, where the recogniser says.
    pub language: Option<String>,
    /// How sure the recogniser is, 0 to 1, where it says.
    pub confidence: Option<f32>,
    /// The words of the text in order, where the recogniser tells them apart.
    #[serde(default)]
    pub words: Vec<Word>,
    /// What the recogniser needs to go on behind this segment as if it had not stopped, opaque to all others;
    /// the one before holds where there is none. A [`Journal`](crate::session::Journal) keeps the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

/// A word, where it was heard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// The frames it covers, within its segment's.
    #[serde(flatten)]
    pub range: FrameRange,
    /// The word, with the marks around it.
    pub text: String,
    /// How sure the recogniser is of it, 0 to 1.
    pub confidence: f32,
}

/// What a session tells its user, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum TranscriptEvent {
    /// A guess at the text that follows the last final segment; a later event replaces it.
    Partial {
        /// The index that the final segment will have.
        segment: u64,
        /// Counts the guesses at this segment, from 0.
        revision: u64,
        /// The frames the guess covers.
        range: FrameRange,
        /// The guess.
        text: String,
    },
    /// A committed segment: it will not change and is told once.
    Final(FinalSegment),
    /// These frames were dropped on purpose and will never be recognised.
    Gap {
        /// The frames lost.
        range: FrameRange,
    },
    /// The connection was lost and found again.
    Reconnected {
        /// The position from which audio is sent again.
        from: FramePos,
    },
    /// Every frame is final or in a gap; nothing follows.
    End {
        /// How many frames the session had.
        frames: u64,
        /// How many final segments.
        finals: u64,
    },
}

impl TranscriptEvent {
    /// The text of a final segment in which something was said.
    #[must_use]
    pub fn final_text(&self) -> Option<&str> {
        match self {
            TranscriptEvent::Final(segment) if !segment.text.is_empty() => Some(&segment.text),
            _ => None,
        }
    }
}

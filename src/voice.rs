//! Whether somebody speaks: marks for chunks, which drop nothing.
//!
//! The detector is a small neural network (earshot) that judges hops of 16 ms. Its opinion is kept for as long as
//! people pause between words, so a chunk that is marked silent lies outside of speech, but for soft sounds before its
//! first vowel: who drops silent chunks should keep the last one before speech.

use earshot::Detector;

use crate::audio::{AudioChunk, sample};

/// The rate that the detector knows.
pub const VOICE_RATE: u32 = 16_000;

/// Frames in a hop: what the detector scores at once.
pub const HOP: usize = 256;

/// A hop is voiced from this score on.
pub const VOICED: f32 = 0.5;

/// For so many hops after a voiced one it is still speech: 0.3 s.
const HANGOVER: u32 = 19;

/// Marks the chunks of one stream at [`VOICE_RATE`], in order.
pub struct VoiceMarker {
    detector: Box<Detector>,
    /// The start of the next hop.
    hop: Vec<f32>,
    /// Hops for which it is still speech.
    left: u32,
}

impl VoiceMarker {
    /// A marker at the start of a stream.
    #[must_use]
    pub fn new() -> VoiceMarker {
        VoiceMarker { detector: Box::default(), hop: Vec::with_capacity(HOP), left: 0 }
    }

    /// Marks the next chunk. What does not fill a hop is judged with the next one, and until then like what precedes
    /// it.
    #[must_use]
    pub fn mark(&mut self, chunk: AudioChunk) -> AudioChunk {
        let mut voiced = self.left > 0;
        for sample in sample::read_s16le(chunk.payload()) {
            self.hop.push(sample);
            if self.hop.len() == HOP {
                let score = self.detector.predict_f32(&self.hop);
                self.hop.clear();
                self.left = if score >= VOICED { HANGOVER } else { self.left.saturating_sub(1) };
                voiced |= self.left > 0;
            }
        }
        chunk.marked(voiced)
    }
}

impl Default for VoiceMarker {
    fn default() -> VoiceMarker {
        VoiceMarker::new()
    }
}

impl std::fmt::Debug for VoiceMarker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VoiceMarker({} hops of speech left)", self.left)
    }
}

//! Voice activity detection: marks chunks as voiced or silent, and drops nothing.
//!
//! The detector is a small neural network (earshot) that scores hops of 16 ms. A voiced hop extends over
//! the pauses between words (hangover), so a chunk that is marked silent lies outside of speech, except
//! for soft sounds before the first vowel. A caller that drops silent chunks should keep the last one
//! before speech.

use earshot::Detector;

use crate::audio::{AudioChunk, sample};

/// Sample rate of the detector, in Hz.
pub const VOICE_RATE: u32 = 16_000;

/// Number of frames in a hop, which the detector scores at once.
pub const HOP: usize = 256;

/// Score from which on a hop is voiced.
pub const VOICED: f32 = 0.5;

/// Number of hops after a voiced one that still count as speech: 0.3 s.
const HANGOVER: u32 = 19;

/// Voice activity detector that marks the chunks of one stream at [`VOICE_RATE`], in order.
pub struct VoiceMarker {
    detector: Box<Detector>,
    /// Samples of the incomplete hop.
    hop: Vec<f32>,
    /// Remaining hops that count as speech.
    left: u32,
}

impl VoiceMarker {
    /// Creates a marker at the start of a stream.
    #[must_use]
    pub fn new() -> VoiceMarker {
        VoiceMarker { detector: Box::default(), hop: Vec::with_capacity(HOP), left: 0 }
    }

    /// Marks the next chunk. Samples that do not fill a hop are scored with the next chunk, and until
    /// then count like those before them.
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

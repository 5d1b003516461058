//! A recogniser whose text is a digest of the samples that it received.

use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use voxline::audio::{FramePos, FrameRange};
use voxline::engine::{
    EngineError, PartialResult, RecognitionRequest, Recognizer, RecognizerStream, Segment,
};
use voxline_support::hex;

/// Returns a text that identifies these samples: the first 8 bytes of their SHA-256, in hex.
#[must_use]
pub fn digest(samples: &[i16]) -> String {
    let mut digest = Sha256::new();
    for sample in samples {
        digest.update(sample.to_le_bytes());
    }
    hex(&digest.finalize()[..8])
}

/// A recogniser that cuts its audio into segments of a fixed length. The text of each segment is a digest
/// of its samples. The recogniser costs next to nothing, and a single lost, repeated or changed sample
/// changes the text. It keeps the audio of every stream.
#[derive(Debug)]
pub struct DigestRecognizer {
    segment_frames: usize,
    recordings: Mutex<Vec<Recording>>,
}

type Recording = Arc<Mutex<Vec<i16>>>;

impl DigestRecognizer {
    /// Creates a recogniser whose segments have `segment_frames` frames.
    #[must_use]
    pub fn new(segment_frames: usize) -> DigestRecognizer {
        DigestRecognizer { segment_frames, recordings: Mutex::default() }
    }

    /// Returns the audio that each stream has received so far, in the order in which the streams were
    /// started.
    #[must_use]
    pub fn recordings(&self) -> Vec<Vec<i16>> {
        let recordings = self.recordings.lock().unwrap_or_else(PoisonError::into_inner);
        recordings.iter().map(|pcm| pcm.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect()
    }

    /// Discards the audio recorded so far. Live streams go on unrecorded. For runs so long that the
    /// recordings would fill memory.
    pub fn forget(&self) {
        self.recordings.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Recognizer for DigestRecognizer {
    fn name(&self) -> &str {
        "digest"
    }

    fn longest_pending(&self, _: &RecognitionRequest) -> Option<u64> {
        Some(self.segment_frames as u64)
    }

    fn start(&self, request: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
        self.capabilities().check(request)?;
        let received = Recording::default();
        self.recordings.lock().unwrap_or_else(PoisonError::into_inner).push(received.clone());
        Ok(Box::new(Stream { segment_frames: self.segment_frames, received, committed: 0, partial_end: 0 }))
    }
}

struct Stream {
    segment_frames: usize,
    received: Recording,
    /// Number of frames covered by segments.
    committed: usize,
    /// Number of frames received at the last partial result.
    partial_end: usize,
}

impl Stream {
    fn segment(&self, received: &[i16], end: usize) -> Segment {
        let text = digest(&received[self.committed..end]);
        let range = FrameRange::new(FramePos(self.committed as u64), FramePos(end as u64));
        Segment { text, confidence: Some(1.0), ..Segment::silence(range) }
    }
}

impl RecognizerStream for Stream {
    fn push(&mut self, pcm: &[i16]) -> Result<Vec<Segment>, EngineError> {
        let received = self.received.clone();
        let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
        received.extend_from_slice(pcm);
        let mut segments = Vec::new();
        while received.len() - self.committed >= self.segment_frames {
            segments.push(self.segment(&received, self.committed + self.segment_frames));
            self.committed += self.segment_frames;
        }
        Ok(segments)
    }

    fn partial(&mut self) -> Result<PartialResult, EngineError> {
        let received = self.received.clone();
        let received = received.lock().unwrap_or_else(PoisonError::into_inner);
        if received.len() == self.partial_end || received.len() == self.committed {
            return Ok(PartialResult::Nothing);
        }
        self.partial_end = received.len();
        Ok(PartialResult::Text(self.segment(&received, received.len())))
    }

    fn flush(&mut self) -> Result<Vec<Segment>, EngineError> {
        let received = self.received.clone();
        let received = received.lock().unwrap_or_else(PoisonError::into_inner);
        if received.len() == self.committed {
            return Ok(Vec::new());
        }
        let rest = self.segment(&received, received.len());
        self.committed = received.len();
        Ok(vec![rest])
    }
}

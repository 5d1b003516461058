//! A recogniser that costs nothing.

use voxline::audio::{FramePos, FrameRange};
use voxline::engine::{
    EngineError, PartialResult, RecognitionRequest, Recognizer, RecognizerStream, Segment,
};

/// A recogniser that drops its audio and keeps only the frame count. Every `segment_frames` frames are one
/// segment without text, so a session costs only the transport of its audio: for benchmarks and load tests.
/// It proves nothing about the samples; [`DigestRecognizer`](super::DigestRecognizer) does.
#[derive(Debug)]
pub struct NullRecognizer {
    segment_frames: u64,
}

impl NullRecognizer {
    /// Creates a recogniser whose segments have `segment_frames` frames (at
    /// [`RECOGNIZER_RATE`](voxline::engine::RECOGNIZER_RATE)). A flush ends a segment sooner.
    ///
    /// # Panics
    /// Panics if `segment_frames` is 0: the stream would never advance.
    #[must_use]
    pub fn new(segment_frames: u64) -> NullRecognizer {
        assert!(segment_frames > 0, "a segment of no frames, expected 1 or more");
        NullRecognizer { segment_frames }
    }
}

impl Recognizer for NullRecognizer {
    fn name(&self) -> &str {
        "null"
    }

    fn start(&self, request: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
        self.capabilities().check(request)?;
        let segment_frames = self.segment_frames;
        Ok(Box::new(Stream { segment_frames, received: FramePos::ZERO, committed: FramePos::ZERO }))
    }
}

struct Stream {
    segment_frames: u64,
    /// Position after the last frame received.
    received: FramePos,
    /// Position after the last frame covered by a segment.
    committed: FramePos,
}

impl Stream {
    fn segment(&mut self, end: FramePos) -> Segment {
        let range = FrameRange::new(self.committed, end);
        self.committed = end;
        Segment::silence(range)
    }
}

impl RecognizerStream for Stream {
    fn push(&mut self, pcm: &[i16]) -> Result<Vec<Segment>, EngineError> {
        self.received = self.received + pcm.len() as u64;
        let mut segments = Vec::new();
        while self.received - self.committed >= self.segment_frames {
            segments.push(self.segment(self.committed + self.segment_frames));
        }
        Ok(segments)
    }

    fn partial(&mut self) -> Result<PartialResult, EngineError> {
        Ok(PartialResult::Nothing)
    }

    fn flush(&mut self) -> Result<Vec<Segment>, EngineError> {
        if self.received == self.committed {
            return Ok(Vec::new());
        }
        Ok(vec![self.segment(self.received)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_contiguous_and_cover_what_was_pushed() {
        let mut stream = NullRecognizer::new(300).start(&RecognitionRequest::new()).unwrap();
        let ends = |segments: Vec<Segment>| -> Vec<(u64, u64)> {
            segments.iter().map(|segment| (segment.range.start.0, segment.range.end.0)).collect()
        };
        assert_eq!(ends(stream.push(&[1; 299]).unwrap()), []);
        assert_eq!(ends(stream.push(&[1; 302]).unwrap()), [(0, 300), (300, 600)]);
        assert_eq!(ends(stream.flush().unwrap()), [(600, 601)]);
        assert_eq!(ends(stream.flush().unwrap()), []);
        assert_eq!(ends(stream.push(&[1; 300]).unwrap()), [(601, 901)]);
    }
}

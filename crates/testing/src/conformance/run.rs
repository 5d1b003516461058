//! Recognition of a recording, checked step by step.

use std::ops::RangeInclusive;

use super::Nonconformance;
use voxline::audio::{FramePos, FrameRange};
use voxline::engine::{
    Capabilities, PartialResult, RecognitionRequest, Recognizer, RecognizerStream, Segment,
};
use voxline::protocol::MAX_CONTEXT_BYTES;

/// Recognition of one recording, checked step by step.
pub(super) struct Run {
    stream: Box<dyn RecognizerStream>,
    capabilities: Capabilities,
    longest_pending: Option<u64>,
    /// Number of frames pushed.
    pushed: FramePos,
    pub(super) segments: Vec<Segment>,
}

impl Run {
    pub(super) fn new(
        recognizer: &dyn Recognizer,
        request: &RecognitionRequest,
    ) -> Result<Run, Nonconformance> {
        Ok(Run {
            stream: recognizer.start(request)?,
            capabilities: recognizer.capabilities(),
            longest_pending: recognizer.longest_pending(request),
            pushed: FramePos::ZERO,
            segments: Vec::new(),
        })
    }

    /// Recognises a recording in pieces of `piece` frames, step by step if there is more than one. Returns
    /// its segments.
    pub(super) fn through(
        mut self,
        pcm: &[i16],
        piece: usize,
        partials: bool,
    ) -> Result<Vec<Segment>, Nonconformance> {
        for piece in pcm.chunks(piece.max(1)) {
            if piece.len() == pcm.len() {
                self.push(piece)?;
            } else {
                self.feed(piece)?;
            }
            if partials {
                self.partial()?;
            }
        }
        self.flush()?;
        Ok(self.segments)
    }

    /// Returns the end of the last segment.
    fn covered(&self) -> FramePos {
        self.segments.last().map_or(FramePos::ZERO, |last| last.range.end)
    }

    pub(super) fn push(&mut self, pcm: &[i16]) -> Result<(), Nonconformance> {
        self.pushed = self.pushed + pcm.len() as u64;
        let segments = self.stream.push(pcm)?;
        self.take(segments)?;
        self.check_pending()
    }

    /// Pushes samples, and does the work on them step by step.
    fn feed(&mut self, pcm: &[i16]) -> Result<(), Nonconformance> {
        self.pushed = self.pushed + pcm.len() as u64;
        let segments = self.stream.feed(pcm)?;
        self.take(segments)?;
        while let Some(segments) = self.stream.work()? {
            self.take(segments)?;
        }
        self.check_pending()
    }

    fn check_pending(&self) -> Result<(), Nonconformance> {
        let pending = self.pushed - self.covered();
        match self.longest_pending {
            Some(longest) if pending > longest => Err(Nonconformance::Pending { pending, longest }),
            _ => Ok(()),
        }
    }

    pub(super) fn flush(&mut self) -> Result<(), Nonconformance> {
        for _ in 0..2 {
            let segments = self.stream.flush()?;
            self.take(segments)?;
            let (covered, pushed) = (self.covered(), self.pushed);
            if covered != pushed {
                return Err(Nonconformance::Uncovered { covered, pushed });
            }
        }
        Ok(())
    }

    /// Finishes a partial result, if one is due.
    fn partial(&mut self) -> Result<(), Nonconformance> {
        loop {
            match self.stream.partial()? {
                PartialResult::Nothing => return Ok(()),
                PartialResult::Unfinished => {}
                PartialResult::Text(segment) => return self.check_partial(&segment),
            }
        }
    }

    fn check_partial(&self, partial: &Segment) -> Result<(), Nonconformance> {
        self.check_range(self.covered(), partial.range)?;
        check_figures(partial)?;
        let segment = partial.range;
        let absent = [
            ("words", partial.words.is_empty()),
            ("context", partial.context.is_none()),
            ("avg_log_probability", partial.avg_log_probability.is_none()),
            ("compression_ratio", partial.compression_ratio.is_none()),
            ("no_speech_probability", partial.no_speech_probability.is_none()),
            ("tokens", partial.tokens.is_empty()),
        ];
        match absent.into_iter().find(|(_, is_absent)| !is_absent) {
            Some((field, _)) => Err(Nonconformance::Unexpected { field, segment }),
            None => Ok(()),
        }
    }

    /// Checks the next segments, and keeps them.
    fn take(&mut self, segments: Vec<Segment>) -> Result<(), Nonconformance> {
        for segment in segments {
            self.check_range(self.covered(), segment.range)?;
            self.check_segment(&segment)?;
            self.segments.push(segment);
        }
        Ok(())
    }

    fn check_range(&self, expected: FramePos, actual: FrameRange) -> Result<(), Nonconformance> {
        if actual.start != expected || actual.is_empty() {
            return Err(Nonconformance::NotContiguous { expected, actual });
        }
        if actual.end > self.pushed {
            return Err(Nonconformance::BeyondAudio { segment: actual, pushed: self.pushed });
        }
        Ok(())
    }

    fn check_segment(&self, segment: &Segment) -> Result<(), Nonconformance> {
        check_figures(segment)?;
        let unexpected = |field| Err(Nonconformance::Unexpected { field, segment: segment.range });
        if !segment.words.is_empty() && !self.capabilities.words {
            return unexpected("words");
        }
        if segment.speaker.is_some() && !self.capabilities.speakers {
            return unexpected("speaker");
        }
        let size = segment.context.as_ref().map_or(0, String::len);
        if size > MAX_CONTEXT_BYTES {
            return Err(Nonconformance::Context { size });
        }
        let mut at = segment.range.start;
        for word in &segment.words {
            let FrameRange { start, end } = word.range;
            if start < at || end < start || end > segment.range.end {
                return Err(Nonconformance::Word { word: word.range, segment: segment.range });
            }
            at = end;
        }
        Ok(())
    }
}

/// Checks that the figures of a segment are within their ranges.
fn check_figures(segment: &Segment) -> Result<(), Nonconformance> {
    let probability = 0.0..=1.0;
    let figures: [(&'static str, Option<f32>, RangeInclusive<f32>); 4] = [
        ("confidence", segment.confidence, probability.clone()),
        ("no_speech_probability", segment.no_speech_probability, probability.clone()),
        ("avg_log_probability", segment.avg_log_probability, f32::MIN..=0.0),
        ("compression_ratio", segment.compression_ratio, f32::MIN_POSITIVE..=f32::MAX),
    ];
    let words = segment.words.iter().map(|word| ("confidence", Some(word.confidence), probability.clone()));
    for (field, value, range) in figures.into_iter().chain(words) {
        if let Some(value) = value.filter(|value| !range.contains(value)) {
            return Err(Nonconformance::OutOfRange { field, value });
        }
    }
    Ok(())
}

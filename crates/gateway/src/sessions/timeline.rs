//! A recogniser stream mapped onto a session's timeline: audio is resampled if the session has another
//! rate, and positions are counted in the session's frames.

use voxline::audio::{FRAME_BYTES, FramePos, sample};
use voxline::engine::{EngineError, PartialResult, RECOGNIZER_RATE, RecognizerStream, Segment};
use voxline::resample::{Resampler, frames_at};

/// A recogniser stream on the timeline of a session.
pub(crate) struct RecognitionTimeline {
    stream: Box<dyn RecognizerStream>,
    sample_rate: u32,
    resampler: Option<Resampler>,
    /// Position of the stream's zero on the session's timeline: the session's start, or the end of a gap.
    origin: FramePos,
    /// Position up to which audio was pushed, in the session's frames.
    pushed: FramePos,
    /// End of the last segment.
    final_: FramePos,
}

impl RecognitionTimeline {
    /// Creates a timeline of `sample_rate` frames that begins at `origin`.
    pub(crate) fn new(
        stream: Box<dyn RecognizerStream>,
        sample_rate: u32,
        origin: FramePos,
    ) -> Result<RecognitionTimeline, EngineError> {
        let resampler = match sample_rate {
            RECOGNIZER_RATE => None,
            rate => {
                let resampler = Resampler::new(rate, RECOGNIZER_RATE);
                Some(resampler.map_err(|error| EngineError::inference("resampler", error))?)
            }
        };
        Ok(RecognitionTimeline { stream, sample_rate, resampler, origin, pushed: origin, final_: origin })
    }

    /// Takes the next audio, 16-bit little-endian PCM. Returns the segments that are complete at once; `work`
    /// does the rest.
    pub(crate) fn feed(&mut self, pcm: &[u8]) -> Result<Vec<Segment>, EngineError> {
        self.pushed = self.pushed + (pcm.len() / FRAME_BYTES) as u64;
        let pcm = match &mut self.resampler {
            None => pcm.as_chunks::<2>().0.iter().map(|&bytes| i16::from_le_bytes(bytes)).collect(),
            Some(resampler) => {
                let input: Vec<f32> = sample::read_s16le(pcm).collect();
                let mut output = Vec::new();
                resampler.push(&input, &mut output);
                sample::quantise(&output)
            }
        };
        let segments = self.stream.feed(&pcm)?;
        Ok(self.place(segments))
    }

    /// Does some of the work that is left, and returns the segments that it completed; `None` once nothing is
    /// left.
    pub(crate) fn work(&mut self) -> Result<Option<Vec<Segment>>, EngineError> {
        let segments = self.stream.work()?;
        Ok(segments.map(|segments| self.place(segments)))
    }

    /// Returns the position up to which audio was pushed.
    pub(crate) fn pushed(&self) -> FramePos {
        self.pushed
    }

    /// Returns a partial result for the current utterance.
    pub(crate) fn partial(&mut self) -> Result<PartialResult, EngineError> {
        let mut partial = self.stream.partial()?;
        if let PartialResult::Text(segment) = &mut partial {
            let end = self.session_pos(segment.range.end).max(self.final_);
            segment.range = self.final_.to(end);
        }
        Ok(partial)
    }

    /// Ends the utterance. Returns the segments that are complete at once; `work` does the rest.
    pub(crate) fn begin_flush(&mut self) -> Result<Vec<Segment>, EngineError> {
        let segments = self.stream.begin_flush()?;
        Ok(self.place(segments))
    }

    /// Takes the audio that the resampler holds, at the end of the stream. Returns the segments that are
    /// complete at once; `work` does the rest, before the last flush.
    pub(crate) fn drain(&mut self) -> Result<Vec<Segment>, EngineError> {
        let Some(mut resampler) = self.resampler.take() else { return Ok(Vec::new()) };
        let mut rest = Vec::new();
        resampler.finish(&mut rest);
        let segments = self.stream.feed(&sample::quantise(&rest))?;
        Ok(self.place(segments))
    }

    /// Extends the last segments of the stream, so that all segments cover every frame pushed: rounding
    /// between the two rates may leave a frame uncovered.
    pub(crate) fn close(&mut self, segments: &mut Vec<Segment>) {
        match segments.last_mut() {
            Some(last) => last.range.end = self.pushed,
            None if self.final_ < self.pushed => segments.push(Segment::silence(self.final_.to(self.pushed))),
            None => {}
        }
        self.final_ = self.pushed;
    }

    /// Maps segments onto the session's timeline, so that each begins where the one before ended.
    fn place(&mut self, mut segments: Vec<Segment>) -> Vec<Segment> {
        for segment in &mut segments {
            let end = self.session_pos(segment.range.end).clamp(self.final_, self.pushed);
            segment.range = self.final_.to(end);
            for word in &mut segment.words {
                let place = |position| self.session_pos(position).clamp(self.final_, end);
                word.range = place(word.range.start).to(place(word.range.end));
            }
            self.final_ = end;
        }
        segments
    }

    fn session_pos(&self, stream_pos: FramePos) -> FramePos {
        self.origin + frames_at(stream_pos.0, RECOGNIZER_RATE, self.sample_rate)
    }
}

//! A recogniser stream mapped onto a session's timeline: audio is resampled if the session has another
//! rate, and positions are counted in the session's frames.
//!
//! A session that begins anew at a final has no audio before it, but a resampler's filter has, and blocks
//! that began before. So where audio is resampled, stream and resampler begin anew at each final of every
//! session.

use std::sync::Arc;

use voxline::audio::{FRAME_BYTES, FramePos, sample};
use voxline::engine::{
    EngineError, PartialResult, RECOGNIZER_RATE, RecognitionRequest, Recognizer, RecognizerStream, Segment,
};
use voxline::protocol::MAX_CONTEXT_BYTES;
use voxline::resample::{Resampler, frames_at};

/// A recogniser stream on the timeline of a session.
pub(crate) struct RecognitionTimeline {
    stream: Box<dyn RecognizerStream>,
    sample_rate: u32,
    resampling: Option<Resampling>,
    /// Position of the stream's zero on the session's timeline: the session's start, or the end of a gap;
    /// where audio is resampled, also the end of the last segment.
    origin: FramePos,
    /// Position up to which audio was pushed, in the session's frames.
    pushed: FramePos,
    /// End of the last segment.
    final_: FramePos,
}

/// Conversion to the recogniser's rate.
struct Resampling {
    resampler: Resampler,
    recognizer: Arc<dyn Recognizer>,
    /// Request of the next stream, with the context of the last segment.
    request: RecognitionRequest,
    /// Audio from the end of the last segment on, as the session has it.
    kept: Vec<u8>,
    /// Number of frames that the stream was given.
    made: u64,
    flush: Flush,
}

/// Progress of a flush.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flush {
    None,
    /// The stream is still to be flushed, once it has worked on all audio.
    Due,
    Begun,
}

impl RecognitionTimeline {
    /// Starts a recogniser at `origin` of a timeline of `sample_rate` frames.
    pub(crate) fn new(
        recognizer: &Arc<dyn Recognizer>,
        request: &RecognitionRequest,
        sample_rate: u32,
        origin: FramePos,
    ) -> Result<RecognitionTimeline, EngineError> {
        let stream = recognizer.start(request)?;
        let resampling = match sample_rate {
            RECOGNIZER_RATE => None,
            rate => Some(Resampling::new(recognizer.clone(), request.clone(), rate)?),
        };
        Ok(RecognitionTimeline { stream, sample_rate, resampling, origin, pushed: origin, final_: origin })
    }

    /// Takes the next audio, 16-bit little-endian PCM. Returns the segments that are complete at once;
    /// `work_on` does the rest.
    pub(crate) fn feed(&mut self, pcm: &[u8]) -> Result<Vec<Segment>, EngineError> {
        self.pushed = self.pushed + (pcm.len() / FRAME_BYTES) as u64;
        let pcm = match &mut self.resampling {
            None => pcm.as_chunks::<2>().0.iter().map(|&bytes| i16::from_le_bytes(bytes)).collect(),
            Some(resampling) => {
                resampling.kept.extend_from_slice(pcm);
                resampling.convert(pcm)
            }
        };
        let segments = self.stream.feed(&pcm)?;
        self.take(segments)
    }

    /// Returns the number of threads that the next work can use at once.
    pub(crate) fn max_threads(&self) -> usize {
        self.stream.max_threads()
    }

    /// Does some of the work that is left, on at most `threads` threads at once, and returns the segments
    /// that it completed; `None` once nothing is left.
    pub(crate) fn work_on(&mut self, threads: usize) -> Result<Option<Vec<Segment>>, EngineError> {
        if let Some(segments) = self.stream.work_on(threads)? {
            return self.take(segments).map(Some);
        }
        let Some(resampling) = &mut self.resampling else { return Ok(None) };
        match std::mem::replace(&mut resampling.flush, Flush::None) {
            Flush::None => Ok(None),
            Flush::Due => {
                resampling.flush = Flush::Begun;
                let segments = self.stream.begin_flush()?;
                self.take(segments).map(Some)
            }
            Flush::Begun => {
                let segments = self.begin_anew()?;
                let taken = self.take(segments)?;
                Ok((!taken.is_empty()).then_some(taken))
            }
        }
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

    /// Ends the utterance. Returns the segments that are complete at once; `work_on` does the rest.
    pub(crate) fn begin_flush(&mut self) -> Result<Vec<Segment>, EngineError> {
        let segments = match &mut self.resampling {
            None => self.stream.begin_flush()?,
            Some(resampling) => {
                resampling.flush = Flush::Due;
                let rest = resampling.finish();
                self.stream.feed(&rest)?
            }
        };
        self.take(segments)
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

    /// Maps segments onto the session's timeline. Where audio is resampled, each segment but the first is of
    /// a stream that begins at the end of the one before.
    fn take(&mut self, mut segments: Vec<Segment>) -> Result<Vec<Segment>, EngineError> {
        if self.resampling.is_none() {
            segments.iter_mut().for_each(|segment| self.place(segment));
            return Ok(segments);
        }
        let (mut taken, mut rest) = (Vec::new(), segments.into_iter());
        while let Some(mut segment) = rest.next() {
            let before = self.final_;
            self.place(&mut segment);
            if self.final_ > before {
                self.keep(&segment);
                rest = self.begin_anew()?.into_iter();
            }
            taken.push(segment);
        }
        Ok(taken)
    }

    /// Maps a segment onto the session's timeline, so that it begins where the one before ended.
    fn place(&mut self, segment: &mut Segment) {
        let is_last = self.resampling.as_ref().is_some_and(|resampling| {
            resampling.flush == Flush::Begun && segment.range.end.0 >= resampling.made
        });
        let end = if is_last { self.pushed } else { self.session_pos(segment.range.end) };
        let end = end.clamp(self.final_, self.pushed);
        segment.range = self.final_.to(end);
        for word in &mut segment.words {
            let place = |position| self.session_pos(position).clamp(self.final_, end);
            word.range = place(word.range.start).to(place(word.range.end));
        }
        self.final_ = end;
    }

    /// Keeps what the stream after a segment depends on: the context, as the client has it, and whether it is
    /// to be flushed. A context that is too long is not sent.
    fn keep(&mut self, segment: &Segment) {
        let Some(resampling) = &mut self.resampling else { return };
        if let Some(context) = &segment.context {
            let context = if context.len() > MAX_CONTEXT_BYTES { "" } else { context };
            resampling.request.context = Some(context.to_owned());
        }
        if resampling.flush == Flush::Begun && self.final_ == self.pushed {
            resampling.flush = Flush::None;
        }
    }

    /// Begins a stream and a resampler at the end of the last segment. Returns the segments that are complete
    /// at once.
    fn begin_anew(&mut self) -> Result<Vec<Segment>, EngineError> {
        let Some(resampling) = &mut self.resampling else { return Ok(Vec::new()) };
        let rest = usize::try_from(self.pushed - self.final_).unwrap_or(usize::MAX);
        let done = resampling.kept.len().saturating_sub(rest.saturating_mul(FRAME_BYTES));
        resampling.kept.drain(..done);
        resampling.resampler = resampler(self.sample_rate)?;
        resampling.made = 0;
        let kept = std::mem::take(&mut resampling.kept);
        let mut pcm = resampling.convert(&kept);
        resampling.kept = kept;
        if resampling.flush != Flush::None {
            resampling.flush = Flush::Due;
            pcm.extend(resampling.finish());
        }
        self.stream = resampling.recognizer.start(&resampling.request)?;
        self.origin = self.final_;
        self.stream.feed(&pcm)
    }

    fn session_pos(&self, stream_pos: FramePos) -> FramePos {
        self.origin + frames_at(stream_pos.0, RECOGNIZER_RATE, self.sample_rate)
    }
}

impl Resampling {
    fn new(
        recognizer: Arc<dyn Recognizer>,
        request: RecognitionRequest,
        sample_rate: u32,
    ) -> Result<Resampling, EngineError> {
        let resampler = resampler(sample_rate)?;
        Ok(Resampling { resampler, recognizer, request, kept: Vec::new(), made: 0, flush: Flush::None })
    }

    fn convert(&mut self, pcm: &[u8]) -> Vec<i16> {
        let input: Vec<f32> = sample::read_s16le(pcm).collect();
        let mut output = Vec::new();
        self.resampler.push(&input, &mut output);
        self.made += output.len() as u64;
        sample::quantise(&output)
    }

    /// Returns the audio that the resampler holds.
    fn finish(&mut self) -> Vec<i16> {
        let mut rest = Vec::new();
        self.resampler.finish(&mut rest);
        self.made += rest.len() as u64;
        sample::quantise(&rest)
    }
}

fn resampler(sample_rate: u32) -> Result<Resampler, EngineError> {
    Resampler::new(sample_rate, RECOGNIZER_RATE).map_err(|error| EngineError::inference("resampler", error))
}

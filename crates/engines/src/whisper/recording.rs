//! Recognition of a session that nobody waits for: utterances are heard together, in long windows.
//!
//! A window has the utterances that fit into it, so its seams lie in silence. An utterance whose text in the
//! window is doubtful is heard by itself, as in a live session.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Shared;
use super::decoding::Attempt;
use super::joined::{Division, Joined};
use super::model::Model;
use super::ops::Kernels;
use super::options::{DecodingOptions, Language};
use super::recording_context::{Ahead, Context};
use super::stream::learn;
use super::transcribe::{Transcript, Transcription};
use crate::endpoint::{Endpointer, LONGEST, REPORT_SILENCE, Span};
use voxline::audio::{FramePos, FrameRange};
use voxline::engine::{EngineError, PartialResult, RECOGNIZER_RATE, RecognizerStream, Segment};
use voxline::vad::HOP;

/// Longest time from the beginning of a window to its end, in frames: 50 s. The utterances of a window have
/// [`LONGEST`] frames at most, and the pauses between them the rest.
const EXTENT: u64 = 50 * RECOGNIZER_RATE as u64;

/// Most frames that a stream leaves without a segment while it waits for more: a window, and an incomplete
/// hop.
pub(super) const LONGEST_PENDING: u64 = EXTENT + 2 * HOP as u64;

/// A recognition stream of a Whisper model.
pub(super) struct RecordingStream {
    shared: Arc<Shared>,
    options: DecodingOptions,
    /// Segments that are known from the context, of the audio that comes first.
    ahead: VecDeque<Ahead>,
    /// Audio from the end of the last segment on.
    audio: VecDeque<i16>,
    /// End of the last segment.
    told: FramePos,
    /// Number of the frames of `audio` that the endpointer was given.
    judged: usize,
    /// Endpointer from the end of the last window on, as in a stream that is begun anew there, so that both
    /// find the same utterances.
    endpointer: Endpointer,
    /// Spans that no window has taken.
    spans: VecDeque<Span>,
    window: Window,
    hearing: Option<Hearing>,
    /// `true` while the work of a flush is left.
    is_flush: bool,
    /// Context of the last segment.
    context: Option<String>,
}

/// Spans that are to be heard together.
#[derive(Default)]
struct Window {
    spans: Vec<Span>,
    /// Number of samples of the utterances.
    frames: u64,
}

/// A window that is being heard.
struct Hearing {
    spans: Vec<Span>,
    /// Transcript of each span that is an utterance.
    transcripts: Vec<Option<Transcript>>,
    together: Option<Together>,
    /// The utterance that is being heard by itself, by its index.
    alone: Option<(usize, Box<Transcription>)>,
    /// Options for an utterance that is heard by itself, with the language of the window.
    options: Option<DecodingOptions>,
}

/// The utterances of a window that are being heard together.
struct Together {
    joined: Joined,
    /// Index of each utterance among the spans.
    indices: Vec<usize>,
    transcription: Box<Transcription>,
}

impl RecordingStream {
    /// Begins a stream, which continues from the state in `context`. An unreadable context is ignored.
    pub(super) fn new(
        shared: Arc<Shared>,
        options: DecodingOptions,
        context: Option<&str>,
    ) -> RecordingStream {
        let Context { ahead, .. } = Context::parse(context, &shared.model.tokens, EXTENT);
        RecordingStream {
            shared,
            options,
            ahead: ahead.into(),
            audio: VecDeque::new(),
            told: FramePos::ZERO,
            judged: 0,
            endpointer: Endpointer::new(),
            spans: VecDeque::new(),
            window: Window::default(),
            hearing: None,
            is_flush: false,
            context: None,
        }
    }

    /// Does all work that there is.
    fn finish(&mut self) -> Result<Vec<Segment>, EngineError> {
        let mut segments = Vec::new();
        while let Some(more) = self.work()? {
            segments.extend(more);
        }
        Ok(segments)
    }

    /// Does a bounded piece of the work, some ten milliseconds, and returns the segments that it completed;
    /// `None` if there is nothing to do before more audio comes.
    ///
    /// What a window holds depends on the position in the stream alone, not on how the audio was pushed.
    fn advance(&mut self) -> Result<Option<Vec<Segment>>, EngineError> {
        if let Some(hearing) = &mut self.hearing {
            let Shared { model, pools, .. } = &*self.shared;
            let options = &self.options;
            let is_done = pools.run(|kernels| hearing.step(model, kernels, options))?;
            return Ok(Some(if is_done { self.conclude() } else { Vec::new() }));
        }
        if let Some(ahead) = self.ahead.front() {
            let frames = usize::try_from(ahead.frames).unwrap_or(usize::MAX);
            if self.audio.len() >= frames || self.is_flush {
                return Ok(Some(self.tell_ahead(frames)));
            }
            return Ok(None);
        }
        if let Some(span) = self.spans.pop_front() {
            return Ok(Some(self.take_span(span)));
        }
        let rest = self.audio.len() - self.judged;
        if self.is_overdue() {
            self.close();
        } else if rest >= HOP {
            self.judge(HOP);
        } else if self.is_flush && rest > 0 {
            self.judge(rest);
        } else if self.is_flush {
            self.spans.extend(self.endpointer.flush());
            if self.spans.is_empty() {
                if self.window.spans.is_empty() {
                    return Ok(None);
                }
                self.close();
            }
        } else {
            return Ok(None);
        }
        Ok(Some(Vec::new()))
    }

    /// Gives the endpointer the next frames.
    fn judge(&mut self, frames: usize) {
        let pcm: Vec<i16> = self.audio.range(self.judged..self.judged + frames).copied().collect();
        self.judged += frames;
        self.spans.extend(self.endpointer.push(&pcm));
    }

    /// Begins anew at the end of a segment.
    fn begin_at(&mut self, end: FramePos) {
        let frames = usize::try_from(end - self.told).unwrap_or(usize::MAX);
        self.audio.drain(..frames.min(self.audio.len()));
        (self.told, self.judged) = (end, 0);
        self.endpointer = Endpointer::starting_at(end);
        self.spans.clear();
    }

    /// Tells the first of the known segments, of which `frames` frames are due; fewer if a flush cuts it.
    fn tell_ahead(&mut self, frames: usize) -> Vec<Segment> {
        let there = frames.min(self.audio.len());
        let range = self.told.to(self.told + there as u64);
        let ahead = self.ahead.pop_front();
        if there < frames {
            // The audio that the others were told from does not come.
            self.ahead.clear();
        }
        self.begin_at(range.end);
        let Some(ahead) = ahead.filter(|_| there > 0) else { return Vec::new() };
        let rest: Vec<Ahead> = self.ahead.iter().cloned().collect();
        let segment = ahead.segment(&self.shared.model.tokens, range);
        vec![Segment { context: self.context(&rest), ..segment }]
    }

    /// Adds a span to the window, or hears the window first.
    fn take_span(&mut self, span: Span) -> Vec<Segment> {
        match span {
            // Silence before an utterance belongs to its window, unless it is long.
            Span::Silence { range } if self.window.spans.is_empty() && range.len() >= REPORT_SILENCE => {
                self.begin_at(range.end);
                vec![Segment::silence(range)]
            }
            span if self.window.has_room_for(&span) => {
                self.window.push(span);
                Vec::new()
            }
            span => {
                self.spans.push_front(span);
                self.close();
                Vec::new()
            }
        }
    }

    /// Returns whether no further utterance fits into the window.
    fn is_overdue(&self) -> bool {
        self.window.start().is_some_and(|start| {
            self.endpointer.judged() > start + EXTENT
                || self.window.frames + self.endpointer.open_frames() > LONGEST
        })
    }

    /// Begins to hear the window.
    fn close(&mut self) {
        let spans = std::mem::take(&mut self.window).spans;
        self.hearing = Some(Hearing::new(spans, &self.options));
    }

    /// Ends the hearing of a window and returns its segments.
    fn conclude(&mut self) -> Vec<Segment> {
        let Some(Hearing { spans, transcripts, .. }) = self.hearing.take() else {
            unreachable!("a window was heard")
        };
        if let Some(last) = spans.last() {
            self.begin_at(range(last).end);
        }
        let mut segments = Vec::new();
        for (span, transcript) in spans.into_iter().zip(transcripts) {
            segments.push(match (span, transcript) {
                (Span::Speech { range, start, pcm, .. }, Some(transcript)) => {
                    learn(&mut self.options, &transcript, pcm.len() as u64);
                    self.shared.segment(range, start, transcript)
                }
                (Span::Silence { range } | Span::Speech { range, .. }, _) => Segment::silence(range),
            });
        }
        self.tell(segments)
    }

    /// Adds the context to each of the segments of a window.
    fn tell(&mut self, mut segments: Vec<Segment>) -> Vec<Segment> {
        let ahead: Vec<Ahead> = segments.iter().skip(1).map(Ahead::of).collect();
        for (at, segment) in segments.iter_mut().enumerate() {
            segment.context = self.context(&ahead[at.min(ahead.len())..]);
        }
        segments
    }

    /// Returns the context with these segments ahead, unless it is that of the segment before.
    fn context(&mut self, ahead: &[Ahead]) -> Option<String> {
        let context = Context::new(&self.shared.model.tokens, &self.options.language, ahead);
        let context = context.text();
        if context == self.context {
            return None;
        }
        self.context.clone_from(&context);
        context
    }
}

impl RecognizerStream for RecordingStream {
    fn push(&mut self, pcm: &[i16]) -> Result<Vec<Segment>, EngineError> {
        self.feed(pcm)?;
        self.finish()
    }

    fn feed(&mut self, pcm: &[i16]) -> Result<Vec<Segment>, EngineError> {
        self.audio.extend(pcm);
        Ok(Vec::new())
    }

    fn begin_flush(&mut self) -> Result<Vec<Segment>, EngineError> {
        self.is_flush = true;
        Ok(Vec::new())
    }

    fn work(&mut self) -> Result<Option<Vec<Segment>>, EngineError> {
        // What costs little is done along with the next step that does not.
        loop {
            let is_hearing = self.hearing.is_some();
            match self.advance()? {
                Some(segments) if is_hearing || !segments.is_empty() => return Ok(Some(segments)),
                Some(_) => {}
                None => {
                    self.is_flush = false;
                    return Ok(None);
                }
            }
        }
    }

    /// Returns nothing, as nobody waits.
    fn partial(&mut self) -> Result<PartialResult, EngineError> {
        Ok(PartialResult::Nothing)
    }

    fn flush(&mut self) -> Result<Vec<Segment>, EngineError> {
        self.begin_flush()?;
        self.finish()
    }
}

impl Window {
    fn start(&self) -> Option<FramePos> {
        self.spans.first().map(|span| range(span).start)
    }

    fn has_room_for(&self, span: &Span) -> bool {
        let Some(start) = self.start() else { return true };
        range(span).end <= start + EXTENT && self.frames + frames(span) <= LONGEST
    }

    fn push(&mut self, span: Span) {
        self.frames += frames(&span);
        self.spans.push(span);
    }
}

fn range(span: &Span) -> FrameRange {
    match span {
        Span::Silence { range } | Span::Speech { range, .. } => *range,
    }
}

/// Returns the number of samples that a span adds to a window. Sound that was not like speech is heard by
/// itself.
fn frames(span: &Span) -> u64 {
    match span {
        Span::Speech { pcm, lively: 1.., .. } => pcm.len() as u64,
        _ => 0,
    }
}

impl Hearing {
    fn new(spans: Vec<Span>, options: &DecodingOptions) -> Hearing {
        let (mut joined, mut indices) = (Joined::default(), Vec::new());
        for (at, span) in spans.iter().enumerate() {
            if let Span::Speech { pcm, lively: lively @ 1.., .. } = span {
                joined.push(pcm, *lively);
                indices.push(at);
            }
        }
        let together = (joined.len() > 1).then(|| {
            let (pcm, lively) = (joined.pcm.clone(), joined.lively);
            let transcription = Transcription::together(pcm, lively, options.clone(), joined.places());
            Together { joined, indices, transcription: Box::new(transcription) }
        });
        let transcripts = spans.iter().map(|_| None).collect();
        Hearing { spans, transcripts, together, alone: None, options: None }
    }
}

impl Hearing {
    /// Does a bounded piece of the work. Returns whether all utterances are heard.
    fn step(&mut self, model: &Model, kernels: &mut Kernels, options: &DecodingOptions) -> bool {
        if let Some(together) = &mut self.together {
            if let Some(attempt) = together.transcription.attempt(model, kernels) {
                self.divide(model, &attempt, options);
            }
            return false;
        }
        if let Some((at, transcription)) = &mut self.alone {
            if let Some(transcript) = transcription.step(model, kernels) {
                self.transcripts[*at] = Some(transcript);
                self.alone = None;
            }
            return false;
        }
        let mut spans = self.spans.iter().zip(&self.transcripts).enumerate();
        let next = spans.find_map(|(at, pair)| match pair {
            (Span::Speech { pcm, lively, .. }, None) => Some((at, pcm.clone(), *lively)),
            _ => None,
        });
        let Some((at, pcm, lively)) = next else { return true };
        let options = self.options.as_ref().unwrap_or(options);
        self.alone = Some((at, Box::new(Transcription::new(pcm, lively, options.clone()))));
        false
    }

    /// Divides the text of the window among its utterances.
    fn divide(&mut self, model: &Model, attempt: &Attempt, options: &DecodingOptions) {
        let Some(Together { joined, indices, transcription }) = self.together.take() else { return };
        let mut options = options.clone();
        if let (Language::Detect(detection), Some((written, detected))) =
            (&mut options.language, attempt.language.zip(attempt.detected))
        {
            detection.learn(written, detected, joined.pcm.len());
        }
        let languages = transcription.languages();
        let Division { transcripts, is_rejected } = joined.divide(model, attempt, languages, &options);
        for (at, transcript) in indices.into_iter().zip(transcripts) {
            self.transcripts[at] = transcript;
        }
        self.options = (!is_rejected).then_some(options);
    }
}

//! Recognition of a session that nobody waits for: utterances are heard together, in long windows.
//!
//! A window has the utterances that fit into it, so its seams lie in silence. An utterance whose text in the
//! window is doubtful is heard by itself, as in a live session.
//!
//! The seams do not depend on the texts. So windows whose audio is there are decoded side by side, as the
//! beams of a search are, and on all threads that are idle. Where the language is detected, windows are heard
//! side by side once it is certain, and those after a window that made it change are heard again.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use super::Shared;
use super::decoder::StepBuffers;
use super::open_windows::{self, OpenWindow};
use super::options::{DecodingOptions, Language};
use super::recording_context::{Ahead, Context};
use super::stream::learn;
use crate::endpoint::{Endpointer, LONGEST, REPORT_SILENCE, Span};
use voxline::audio::{FramePos, FrameRange};
use voxline::engine::{EngineError, PartialResult, RECOGNIZER_RATE, RecognizerStream, Segment};
use voxline::vad::HOP;

/// Longest time from the beginning of a window to its end, in frames: 50 s. The utterances of a window have
/// [`LONGEST`] frames at most, and the pauses between them the rest.
const EXTENT: u64 = 50 * RECOGNIZER_RATE as u64;

/// Usual time from the beginning of a window to its end, in frames: 30 s.
pub(super) const USUAL_EXTENT: u64 = 30 * RECOGNIZER_RATE as u64;

/// Most frames that a stream leaves without a segment while it waits for more: a window, and an incomplete
/// hop.
pub(super) const LONGEST_PENDING: u64 = EXTENT + 2 * HOP as u64;

/// A recognition stream of a Whisper model.
pub(super) struct RecordingStream {
    shared: Arc<Shared>,
    options: DecodingOptions,
    /// Segments that are known from the context, of the audio that comes first.
    ahead: VecDeque<Ahead>,
    /// Audio from `told` on.
    audio: VecDeque<i16>,
    /// End of the last segment, or of the last window that is being heard.
    told: FramePos,
    /// Number of the frames of `audio` that the endpointer was given.
    judged: usize,
    /// Endpointer from the end of the last window on, as in a stream that is begun anew there, so that both
    /// find the same utterances.
    endpointer: Endpointer,
    /// Spans that no window has taken.
    spans: VecDeque<Span>,
    window: Window,
    /// Windows that are being heard, in their order.
    open_windows: VecDeque<OpenWindow>,
    /// Largest number of windows that are heard side by side.
    most_windows: usize,
    /// Share in what streams hear at a time, while windows are heard.
    share: Option<Arc<()>>,
    /// Buffers of each thread.
    buffers: Vec<StepBuffers>,
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

/// Result of a piece of work.
enum Progress {
    /// There is nothing to do before more audio comes.
    Idle,
    /// Something was done that costs little.
    Detail,
    /// A step was done, which completed these segments.
    Step(Vec<Segment>),
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
            most_windows: open_windows::side_by_side(&shared.model),
            shared,
            options,
            ahead: ahead.into(),
            audio: VecDeque::new(),
            told: FramePos::ZERO,
            judged: 0,
            endpointer: Endpointer::new(),
            spans: VecDeque::new(),
            window: Window::default(),
            open_windows: VecDeque::new(),
            share: None,
            buffers: Vec::new(),
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

    /// Does a bounded piece of the work, some ten milliseconds, on at most `threads` threads.
    ///
    /// Windows are heard side by side as far as there is audio for them. What a window holds, and its text,
    /// depend on the position in the stream alone, not on how the audio was pushed.
    fn advance(&mut self, threads: usize) -> Result<Progress, EngineError> {
        if !self.may_begin() {
            return self.hear(threads);
        }
        if let Some(ahead) = self.ahead.front() {
            let frames = usize::try_from(ahead.frames).unwrap_or(usize::MAX);
            if self.audio.len() >= frames || self.is_flush {
                return Ok(Progress::Step(self.tell_ahead(frames)));
            }
            return Ok(Progress::Idle);
        }
        if let Some(span) = self.spans.pop_front() {
            return Ok(self.take_span(span));
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
                    return self.hear(threads);
                }
                self.close();
            }
        } else {
            return self.hear(threads);
        }
        Ok(Progress::Detail)
    }

    /// Returns the number of windows that may be heard side by side: a share of what all streams may, so that
    /// their memory is bounded and the results of each come as often, however many there are.
    fn side_by_side(&self) -> usize {
        match &self.options.language {
            // The language of a window depends on those of the windows before.
            Language::Detect(detection) if !detection.is_steady() => 1,
            Language::Known(_) | Language::Detect(_) => {
                let streams = Arc::strong_count(&self.shared.sharing) - 1;
                (self.most_windows / streams.max(1)).max(1)
            }
        }
    }

    /// Returns whether another window may be begun.
    fn may_begin(&self) -> bool {
        self.open_windows.len() < self.side_by_side()
    }

    /// Begins to hear spans.
    fn begin(&mut self, spans: Vec<Span>) {
        self.share.get_or_insert_with(|| Arc::clone(&self.shared.sharing));
        self.open_windows.push_back(OpenWindow::new(spans, &self.options));
    }

    /// Does a step of the work on the windows, and returns the segments of those that are heard.
    fn hear(&mut self, threads: usize) -> Result<Progress, EngineError> {
        if self.open_windows.is_empty() {
            return Ok(Progress::Idle);
        }
        let windows = self.side_by_side().min(self.open_windows.len());
        let RecordingStream { shared, open_windows, buffers, options, .. } = self;
        let Shared { model, pools, .. } = &**shared;
        let open_windows = &mut open_windows.make_contiguous()[..windows];
        open_windows::step(model, pools, buffers, open_windows, options, threads)?;
        let mut segments = Vec::new();
        while let Some(window) = self.open_windows.pop_front_if(|window| window.is_done()) {
            let language = self.options.language.clone();
            segments.extend(self.conclude(window));
            if self.options.language != language {
                self.open_windows.iter_mut().for_each(|window| window.begin_again(&self.options));
            }
        }
        if self.open_windows.is_empty() {
            self.share = None;
        }
        Ok(Progress::Step(segments))
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

    /// Adds a span to the window, or begins to hear the window first.
    fn take_span(&mut self, span: Span) -> Progress {
        match span {
            // Silence before an utterance belongs to its window, unless it is long.
            Span::Silence { range } if self.window.spans.is_empty() && range.len() >= REPORT_SILENCE => {
                self.begin_at(range.end);
                self.begin(vec![Span::Silence { range }]);
            }
            span if self.window.has_room_for(&span) => self.window.push(span),
            span => {
                self.spans.push_front(span);
                self.close();
            }
        }
        Progress::Detail
    }

    /// Returns whether no further utterance fits into the window.
    fn is_overdue(&self) -> bool {
        self.window.start().is_some_and(|start| {
            self.endpointer.judged() > start + EXTENT
                || self.window.frames + self.endpointer.open_frames() > LONGEST
        })
    }

    /// Begins to hear the window, and the next window at its end.
    fn close(&mut self) {
        let spans = std::mem::take(&mut self.window).spans;
        if let Some(last) = spans.last() {
            self.begin_at(range(last).end);
        }
        self.begin(spans);
    }

    /// Returns the segments of a window that is heard.
    fn conclude(&mut self, OpenWindow { spans, transcripts, .. }: OpenWindow) -> Vec<Segment> {
        if let [Span::Silence { range }] = spans[..]
            && range.len() >= REPORT_SILENCE
        {
            return vec![Segment::silence(range)];
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
        self.work_on(1)
    }

    fn max_threads(&self) -> usize {
        self.open_windows.len().min(self.side_by_side()).max(1)
    }

    fn work_on(&mut self, threads: usize) -> Result<Option<Vec<Segment>>, EngineError> {
        let threads = threads.max(1);
        // What costs little is done along with the next step that does not.
        loop {
            let windows = self.open_windows.len();
            match self.advance(threads)? {
                Progress::Step(segments) => return Ok(Some(segments)),
                // To find the end of a window takes some ten milliseconds, too.
                Progress::Detail if self.open_windows.len() > windows => return Ok(Some(Vec::new())),
                Progress::Detail => {}
                Progress::Idle => {
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

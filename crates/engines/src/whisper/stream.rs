//! Recognition of one session: the endpointer finds utterances, and the model transcribes them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Shared;
use super::attempt::Transcript;
use super::detection::Detection;
use super::fallback::compression_ratio;
use super::options::{DecodingOptions, Language};
use super::transcribe::Transcription;
use crate::endpoint::{Endpointer, Open, Span};
use voxline::audio::{FramePos, FrameRange};
use voxline::engine::{EngineError, PartialResult, RECOGNIZER_RATE, RecognizerStream, Segment};
use voxline::transcript::Word;

/// Audio needed for the first partial result of an utterance, of which 0.3 s are from before the voice.
/// Of 121 utterances, its first word is right in 88 and half a word in 16; with 0.7 s 95 and 12, with 0.5
/// s 67 and 18.
const FIRST_PARTIAL: u64 = RECOGNIZER_RATE as u64 * 6 / 10;
/// New audio that makes another partial result worth its cost: 0.8 s.
const PARTIAL_INTERVAL: u64 = RECOGNIZER_RATE as u64 * 8 / 10;

/// A recognition stream of a Whisper model.
pub(super) struct Stream {
    shared: Arc<Shared>,
    options: DecodingOptions,
    endpointer: Endpointer,
    /// Spans whose segments are to come.
    spans: VecDeque<Span>,
    final_result: Option<FinalInProgress>,
    in_progress: Option<PartialInProgress>,
    /// Last partial result of the open utterance.
    last: Option<LastPartial>,
}

/// A final result in progress.
struct FinalInProgress {
    /// Frames of the segment.
    range: FrameRange,
    /// Frames of these that are transcribed.
    heard: FrameRange,
    transcription: Box<Transcription>,
}

/// A partial result in progress.
struct PartialInProgress {
    /// Frames since the last segment.
    range: FrameRange,
    /// Frames of these that are transcribed.
    heard: FrameRange,
    /// `true` if the utterance will end there, should silence follow; the result then serves as the final
    /// one.
    settled: bool,
    transcription: Box<Transcription>,
}

/// A finished partial result.
struct LastPartial {
    heard: FrameRange,
    text: String,
    /// Transcript that the utterance will have, should it end there.
    settled: Option<Transcript>,
}

impl Stream {
    pub(super) fn new(shared: Arc<Shared>, options: DecodingOptions) -> Stream {
        Stream {
            shared,
            options,
            endpointer: Endpointer::new().beginning_anew(),
            spans: VecDeque::new(),
            final_result: None,
            in_progress: None,
            last: None,
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

    /// Begins the segment of a span. Returns it if there is no work left to do for it.
    fn begin(&mut self, span: Span) -> Option<Segment> {
        let (in_progress, last) = (self.in_progress.take(), self.last.take());
        let (range, start, pcm, lively) = match span {
            Span::Silence { range } => return Some(Segment::silence(range)),
            Span::Speech { range, start, pcm, lively } => (range, start, pcm, lively),
        };
        let heard = start.to(start + pcm.len() as u64);
        let finished = last.filter(|finished| finished.heard == heard).and_then(|finished| finished.settled);
        if let Some(transcript) = finished {
            return Some(self.segment(range, heard, transcript));
        }
        let transcription = match in_progress {
            Some(in_progress) if in_progress.settled && in_progress.heard == heard => {
                in_progress.transcription
            }
            _ => Box::new(Transcription::new(pcm, lively, self.options.clone())),
        };
        self.final_result = Some(FinalInProgress { range, heard, transcription });
        None
    }

    fn segment(&mut self, range: FrameRange, heard: FrameRange, transcript: Transcript) -> Segment {
        let detection = learn(&mut self.options, &transcript, heard.len());
        let context = detection.and_then(|detection| detection.context(&self.shared.model.tokens));
        Segment { context, ..self.shared.segment(range, heard.start, transcript) }
    }

    /// Returns the partial result to work on: the one in progress, unless the utterance has ended or gone on
    /// since, or a new one that is due. One that may be the final is decoded more carefully, which would hold
    /// up those of further speech.
    fn next_partial(&mut self) -> Option<&mut PartialInProgress> {
        let Open { range, start, pcm, lively, settled } = self.endpointer.open()?;
        let heard = start.to(start + pcm.len() as u64);
        let is_right = |in_progress: &PartialInProgress| {
            in_progress.settled == settled && (!settled || in_progress.heard == heard)
        };
        let at_hand = self.in_progress.as_ref().is_some_and(is_right);
        if !at_hand {
            let due = match &self.last {
                None => heard.len() >= FIRST_PARTIAL || settled,
                Some(last) if settled => last.settled.is_none() || last.heard != heard,
                Some(last) => heard.end.0 >= last.heard.end.0 + PARTIAL_INTERVAL,
            };
            if !due {
                return None;
            }
            let pcm = pcm.to_vec();
            let transcription = if settled {
                Transcription::new(pcm, lively, self.options.clone())
            } else {
                Transcription::partial(pcm, lively, self.options.clone())
            };
            self.in_progress =
                Some(PartialInProgress { range, heard, settled, transcription: Box::new(transcription) });
        }
        self.in_progress.as_mut()
    }
}

/// Records the language of an utterance of `frames` frames. Returns the state of the language detection, if
/// it may have changed.
pub(super) fn learn<'a>(
    options: &'a mut DecodingOptions,
    transcript: &Transcript,
    frames: u64,
) -> Option<&'a Detection> {
    let Language::Detect(detection) = &mut options.language else { return None };
    let (written, detected) = transcript.language.zip(transcript.detected)?;
    if transcript.text.is_empty() {
        return None;
    }
    detection.learn(written, detected, usize::try_from(frames).unwrap_or(usize::MAX));
    Some(detection)
}

impl Shared {
    /// Converts the transcript of an utterance that begins at `start` within `range` into a segment.
    pub(super) fn segment(&self, range: FrameRange, start: FramePos, transcript: Transcript) -> Segment {
        let (said, confidence) = (!transcript.text.is_empty(), transcript.confidence());
        let words = transcript.words.into_iter().map(|word| Word {
            range: (start + word.range.start as u64).to(start + word.range.end as u64),
            text: word.text,
            confidence: word.confidence,
        });
        Segment {
            words: words.collect(),
            language: self.model.tokens.code(transcript.language).filter(|_| said).map(str::to_owned),
            confidence: said.then_some(confidence),
            avg_log_probability: said.then_some(transcript.log_probability.min(0.0)),
            compression_ratio: said.then(|| compression_ratio(&transcript.text)),
            no_speech_probability: Some(transcript.no_speech.clamp(0.0, 1.0)),
            tokens: transcript.tokens,
            text: transcript.text,
            ..Segment::silence(range)
        }
    }
}

impl RecognizerStream for Stream {
    fn push(&mut self, pcm: &[i16]) -> Result<Vec<Segment>, EngineError> {
        self.feed(pcm)?;
        self.finish()
    }

    fn feed(&mut self, pcm: &[i16]) -> Result<Vec<Segment>, EngineError> {
        self.spans.extend(self.endpointer.push(pcm));
        Ok(Vec::new())
    }

    fn begin_flush(&mut self) -> Result<Vec<Segment>, EngineError> {
        self.spans.extend(self.endpointer.flush());
        Ok(Vec::new())
    }

    fn work(&mut self) -> Result<Option<Vec<Segment>>, EngineError> {
        let shared = Arc::clone(&self.shared);
        if let Some(FinalInProgress { transcription, .. }) = &mut self.final_result {
            let Some(transcript) = shared.pools.run(|kernels| transcription.step(&shared.model, kernels))?
            else {
                return Ok(Some(Vec::new()));
            };
            let Some(FinalInProgress { range, heard, .. }) = self.final_result.take() else {
                unreachable!("it was worked on")
            };
            return Ok(Some(vec![self.segment(range, heard, transcript)]));
        }
        let Some(span) = self.spans.pop_front() else { return Ok(None) };
        Ok(Some(self.begin(span).into_iter().collect()))
    }

    /// Returns the first partial result of an utterance as it is. Later ones are shortened to the words
    /// that they share with the one before, which later audio rarely changes; if they share none, they
    /// are returned as they are. One at the likely end is returned as it is, and also serves as the final
    /// result.
    fn partial(&mut self) -> Result<PartialResult, EngineError> {
        let shared = Arc::clone(&self.shared);
        let Some(PartialInProgress { transcription, .. }) = self.next_partial() else {
            return Ok(PartialResult::Nothing);
        };
        let Some(transcript) = shared.pools.run(|kernels| transcription.step(&shared.model, kernels))? else {
            return Ok(PartialResult::Unfinished);
        };
        let Some(PartialInProgress { range, heard, settled, .. }) = self.in_progress.take() else {
            unreachable!("it was worked on")
        };
        let text = transcript.text.clone();
        let agreed = match &self.last {
            Some(last) if !settled => agreement(&last.text, &text),
            _ => String::new(),
        };
        let shown = if agreed.is_empty() { text.clone() } else { agreed };
        let partial = Segment {
            text: shown,
            language: shared.model.tokens.code(transcript.language).map(str::to_owned),
            confidence: Some(transcript.confidence()),
            ..Segment::silence(range)
        };
        self.last = Some(LastPartial { heard, text, settled: settled.then_some(transcript) });
        Ok(if partial.text.is_empty() { PartialResult::Nothing } else { PartialResult::Text(partial) })
    }

    fn flush(&mut self) -> Result<Vec<Segment>, EngineError> {
        self.begin_flush()?;
        self.finish()
    }
}

/// Returns the words that both texts begin with, as the second writes them. Case and punctuation may
/// differ, since they depend on the words that follow.
fn agreement(before: &str, now: &str) -> String {
    let bare = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    let words = before.split_whitespace().zip(now.split_whitespace());
    let agreed = words.take_while(|(before, now)| bare(before) == bare(now)).map(|(_, now)| now);
    agreed.collect::<Vec<&str>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_results_agree_word_by_word() {
        assert_eq!(agreement("Go forward.", "go forward ten meters"), "go forward");
        assert_eq!(agreement("Go four", "Go forward"), "Go");
        assert_eq!(agreement("Oh", "Go forward"), "");
    }
}

//! One session's recognition: the endpointer says what to listen to, the model what was said.

use std::sync::Arc;

use super::Shared;
use super::transcribe::{Language, Transcript};
use crate::audio::{FramePos, FrameRange};
use crate::engine::{Endpointer, EngineError, RECOGNIZER_RATE, RecognizerStream, Segment, Span};

/// New audio that makes another guess worth its cost: one second.
const GUESS_EVERY: u64 = RECOGNIZER_RATE as u64;

/// A stream of one Whisper model.
pub(super) struct Stream {
    shared: Arc<Shared>,
    language: Language,
    endpointer: Endpointer,
    guess: Option<Guess>,
}

/// The last guess at the open utterance.
struct Guess {
    end: FramePos,
    text: String,
}

impl Stream {
    pub(super) fn new(shared: Arc<Shared>, language: Language) -> Stream {
        Stream { shared, language, endpointer: Endpointer::new(), guess: None }
    }

    fn segments(&mut self, spans: Vec<Span>) -> Result<Vec<Segment>, EngineError> {
        spans.into_iter().map(|span| self.segment(span)).collect()
    }

    fn segment(&mut self, span: Span) -> Result<Segment, EngineError> {
        self.guess = None;
        match span {
            Span::Silence { range } => {
                Ok(Segment { range, text: String::new(), language: None, confidence: None })
            }
            Span::Speech { range, pcm } => {
                let Shared { model, lanes, .. } = &*self.shared;
                let heard = lanes.run(|kernels| model.transcribe(kernels, &pcm, self.language))?;
                if let Language::Detect { earlier } = &mut self.language
                    && !heard.text.is_empty()
                {
                    *earlier = heard.language;
                }
                Ok(self.shared.segment(range, heard))
            }
        }
    }
}

impl Shared {
    /// What was said in a range, as a segment.
    fn segment(&self, range: FrameRange, heard: Transcript) -> Segment {
        let said = !heard.text.is_empty();
        Segment {
            range,
            text: heard.text,
            language: self.model.tokens.code(heard.language).filter(|_| said).map(str::to_owned),
            confidence: said.then_some(heard.confidence),
        }
    }
}

impl RecognizerStream for Stream {
    fn push(&mut self, pcm: &[i16]) -> Result<Vec<Segment>, EngineError> {
        let spans = self.endpointer.push(pcm);
        self.segments(spans)
    }

    /// The first guess at an utterance is shown as it is. Later ones are shown as far as they repeat the one before
    /// word for word, which is what later audio rarely changes; where they agree on nothing, as they are.
    fn partial(&mut self) -> Result<Option<Segment>, EngineError> {
        let Some((range, pcm)) = self.endpointer.open() else { return Ok(None) };
        let since = self.guess.as_ref().map_or(range.len(), |guess| range.end - guess.end);
        if since < GUESS_EVERY {
            return Ok(None);
        }
        let Shared { model, lanes, .. } = &*self.shared;
        let heard = lanes.run(|kernels| model.guess(kernels, pcm, self.language))?;
        let mut segment = self.shared.segment(range, heard);
        let text = segment.text.clone();
        if let Some(last) = &self.guess {
            let agreed = agreement(&last.text, &text);
            if !agreed.is_empty() {
                segment.text = agreed;
            }
        }
        self.guess = Some(Guess { end: range.end, text });
        Ok(Some(segment).filter(|segment| !segment.text.is_empty()))
    }

    fn flush(&mut self) -> Result<Vec<Segment>, EngineError> {
        let spans = self.endpointer.flush();
        self.segments(spans)
    }
}

/// The words both texts begin with, as the second writes them. Case and punctuation may differ: they depend on what
/// follows.
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
    fn guesses_agree_word_by_word() {
        assert_eq!(agreement("Go forward.", "go forward ten meters"), "go forward");
        assert_eq!(agreement("Go four", "Go forward"), "Go");
        assert_eq!(agreement("Oh", "Go forward"), "");
    }
}

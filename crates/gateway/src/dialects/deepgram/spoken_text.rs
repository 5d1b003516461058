//! The text of a speech that comes in pieces, with the places where it is flushed.

use std::collections::VecDeque;

use crate::dialects::texts::{MAX_CHARACTERS, take_sentences};

/// Next part of a speech.
#[derive(Debug, PartialEq)]
pub(super) enum Part {
    Text(String),
    /// All text before the flush with this number was spoken.
    Flushed(u64),
}

/// Text that is not spoken yet.
#[derive(Default)]
pub(super) struct SpokenText {
    /// Text before each flush, with its number.
    flushed: VecDeque<(String, u64)>,
    /// Text after the last flush.
    open: String,
    /// Number of the next flush or clear.
    next: u64,
}

impl SpokenText {
    /// Returns whether more text is welcome. Text that comes faster than it is spoken has to wait.
    pub(super) fn has_room(&self) -> bool {
        // A character has a byte at least.
        self.open.len() + self.flushed.iter().map(|(text, _)| text.len() + 1).sum::<usize>() < MAX_CHARACTERS
    }

    /// Returns whether there is no text, not even the start of a sentence.
    pub(super) fn is_empty(&self) -> bool {
        self.flushed.is_empty() && self.open.trim().is_empty()
    }

    pub(super) fn add(&mut self, text: &str) {
        self.open += text;
    }

    /// Ends the sentence here.
    pub(super) fn flush(&mut self) {
        let number = self.number();
        self.flushed.push_back((std::mem::take(&mut self.open), number));
    }

    /// Drops all text. Returns the number of this.
    pub(super) fn clear(&mut self) -> u64 {
        self.flushed.clear();
        self.open.clear();
        self.number()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Takes what is next: text that can be spoken, or a flush whose text was taken.
    pub(super) fn take(&mut self) -> Option<Part> {
        let text = match self.flushed.front_mut() {
            Some((text, _)) => std::mem::take(text),
            None => take_sentences(&mut self.open),
        };
        if !text.trim().is_empty() {
            return Some(Part::Text(text));
        }
        self.flushed.pop_front().map(|(_, number)| Part::Flushed(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Option<Part> {
        Some(Part::Text(text.to_owned()))
    }

    #[test]
    fn sentences_are_spoken_when_they_are_complete_or_flushed() {
        let mut spoken = SpokenText::default();
        assert_eq!(spoken.take(), None);
        spoken.add("One. Two");
        assert_eq!(spoken.take(), text("One. "));
        assert_eq!(spoken.take(), None);
        spoken.add(" words");
        spoken.flush();
        spoken.add("Three. Four.");
        spoken.flush();
        spoken.flush();
        for part in [text("Two words"), Some(Part::Flushed(0)), text("Three. Four."), Some(Part::Flushed(1))]
        {
            assert_eq!(spoken.take(), part);
        }
        assert_eq!((spoken.take(), spoken.take()), (Some(Part::Flushed(2)), None));
    }

    #[test]
    fn what_is_cleared_is_not_spoken() {
        let mut spoken = SpokenText::default();
        spoken.add("One.");
        spoken.flush();
        spoken.add("Two.");
        assert!(!spoken.is_empty());
        assert_eq!((spoken.clear(), spoken.take(), spoken.is_empty()), (1, None, true));
        spoken.add(&"a".repeat(MAX_CHARACTERS));
        assert!(!spoken.has_room());
    }
}

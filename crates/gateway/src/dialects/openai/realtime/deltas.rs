//! Text that is told while it may still change: append-only, so a word is told once two hypotheses in
//! succession agree on it.

use crate::sessions::plain_text::plain;

/// The words of one utterance that were told.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    told: Vec<String>,
    /// Words of the last hypothesis.
    last: Vec<String>,
}

impl Agreement {
    /// Takes a hypothesis of the utterance. Returns the words that are told now, if there are any. The newest
    /// word of a hypothesis is held back: its audio may go on.
    pub(super) fn hypothesis(&mut self, text: &str) -> Option<String> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let agreed = words.iter().zip(&self.last).take_while(|(word, last)| word == last).count();
        let end = agreed.min(words.len().saturating_sub(1));
        let news =
            self.after_told(&words).and_then(|start| words.get(start..end)).unwrap_or_default().to_vec();
        self.last = words;
        if news.is_empty() {
            return None;
        }
        let text = news.join(" ");
        self.told.extend(news);
        Some(text)
    }

    /// Takes the final text of the utterance. Returns the words that were not told, if there are any, and is
    /// ready for the next utterance. If other words were told, they can't be taken back, and nothing follows.
    pub(super) fn end(&mut self, text: &str) -> Option<String> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let news = self.after_told(&words).map(|start| words[start..].join(" "));
        *self = Agreement::default();
        news.filter(|news| !news.is_empty())
    }

    /// Returns the number of words that were told, if `words` begin with them, but for case and punctuation.
    fn after_told(&self, words: &[String]) -> Option<usize> {
        let told = self.told.len();
        let is_told = |(word, told): (&String, &String)| word == told || plain(word) == plain(told);
        let begins = told <= words.len() && words.iter().zip(&self.told).all(is_told);
        begins.then_some(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_told_when_two_hypotheses_agree_on_it() {
        let mut agreement = Agreement::default();
        for (text, told) in [
            ("the", None),
            ("the cat", Some("the")),
            ("the cat sad", Some("cat")),
            ("the cat sat on", None),
            ("the cat sat on the", Some("sat on")),
            // What was told stays, whatever is thought of it now.
            ("a cat sat on the mat", None),
            ("the cat sat on the mat", None),
            ("the cat sat on the mat", Some("the")),
        ] {
            assert_eq!(agreement.hypothesis(text).as_deref(), told, "{text}");
        }
        assert_eq!(agreement.end("The cat sat on the mat.").as_deref(), Some("mat."));
        // The next utterance begins anew.
        assert_eq!(agreement.hypothesis("the cat"), None);
        assert_eq!(agreement.end("The cat.").as_deref(), Some("The cat."));
    }

    #[test]
    fn nothing_is_told_twice_when_the_final_differs() {
        let mut agreement = Agreement::default();
        agreement.hypothesis("recognise speech now");
        assert_eq!(agreement.hypothesis("recognise speech now").as_deref(), Some("recognise speech"));
        assert_eq!(agreement.end("wreck a nice beach"), None);
        agreement.hypothesis("one two");
        assert_eq!(agreement.hypothesis("one two").as_deref(), Some("one"));
        assert_eq!(agreement.end(""), None);
        assert_eq!(agreement.end(""), None);
    }
}

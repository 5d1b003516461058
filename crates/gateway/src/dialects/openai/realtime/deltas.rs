//! Text that is told while it may still change: append-only, so a word is told once two hypotheses in
//! succession agree on it.

use crate::sessions::plain_text::plain;

/// The words of one utterance that were told.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    /// In plain form: case and punctuation depend on the words that follow.
    told: Vec<String>,
    /// Words of the last hypothesis, in plain form.
    last: Vec<String>,
}

impl Agreement {
    /// Takes a hypothesis of the utterance. Returns the words that are told now, if there are any. The newest
    /// word of a hypothesis is held back: its audio may go on.
    ///
    /// That would keep the first word back until the third hypothesis, since Whisper's are shortened to the
    /// words that they share with the one before, and the first one often has a single word. So the first
    /// word is told even if it is the newest, once a hypothesis has been confirmed as a whole.
    pub(super) fn hypothesis(&mut self, text: &str) -> Option<String> {
        let (words, plain_words) = split(text);
        let agreed = plain_words.iter().zip(&self.last).take_while(|(word, last)| word == last).count();
        let is_first_certain = self.told.is_empty() && agreed > 0 && agreed == self.last.len();
        let end = agreed.min(words.len().saturating_sub(1)).max(usize::from(is_first_certain));
        let start = self.after_told(&plain_words);
        let news = (start < end).then(|| words[start..end].join(" "));
        if news.is_some() {
            self.told.extend_from_slice(&plain_words[start..end]);
        }
        self.last = plain_words;
        news
    }

    /// Takes the final text of the utterance. Returns the words that were not told, if there are any, and is
    /// ready for the next utterance. If other words were told, they can't be taken back, and what follows
    /// them is returned.
    pub(super) fn end(&mut self, text: &str) -> Option<String> {
        let (words, plain_words) = split(text);
        let news = words[self.after_told(&plain_words)..].join(" ");
        *self = Agreement::default();
        (!news.is_empty()).then_some(news)
    }

    /// Returns the number of words of a text that those that were told stand for: as many as make them differ
    /// least from what was told (edit distance by words). Of several such numbers it prefers one after the
    /// last word that was told, and then the closest to the number of words that were told.
    fn after_told(&self, words: &[String]) -> usize {
        let told = self.told.len();
        if words.starts_with(&self.told) {
            return told;
        }
        // Distance between the words that were told, up to one after the other, and each beginning of the
        // text.
        let mut distances: Vec<usize> = (0..=words.len()).collect();
        for (before, told) in self.told.iter().enumerate() {
            let mut diagonal = std::mem::replace(&mut distances[0], before + 1);
            for (at, word) in words.iter().enumerate() {
                let kept = diagonal + usize::from(word != told);
                diagonal = distances[at + 1];
                distances[at + 1] = kept.min(diagonal + 1).min(distances[at] + 1);
            }
        }
        let is_other = |count: &usize| count.checked_sub(1).map(|last| &words[last]) != self.told.last();
        let counts = 0..=words.len();
        let best = counts.min_by_key(|count| (distances[*count], is_other(count), count.abs_diff(told)));
        best.unwrap_or_default()
    }
}

/// Returns the words of a text, as they are and in plain form.
fn split(text: &str) -> (Vec<&str>, Vec<String>) {
    let words: Vec<&str> = text.split_whitespace().collect();
    let plain_words = words.iter().map(|word| plain(word)).collect();
    (words, plain_words)
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

    /// Partial results of Whisper about readings in `samples/transcripts.tsv`. It shortens those after the
    /// first.
    #[test]
    fn the_first_word_is_told_once_a_hypothesis_is_confirmed_as_a_whole() {
        for hypotheses in [
            &[("unless", None), ("Unless", Some("Unless")), ("unless to be rather", None)][..],
            &[("He was not", None), ("He was not", Some("He was")), ("He was not an", Some("not"))],
            // The words after the first are other ones, so it may be another, too.
            &[("Harry Mary.", None), ("Harry", None), ("Harry married a", Some("Harry"))],
            &[("Harry Mary.", None), ("Howdy, Mary, to more", None), ("Had he married", None)],
        ] {
            let mut agreement = Agreement::default();
            for (text, told) in hypotheses {
                assert_eq!(agreement.hypothesis(text).as_deref(), *told, "{text}");
            }
        }
    }

    #[test]
    fn what_follows_the_words_that_differ_is_told() {
        for (told, text, rest) in [
            ("the cat sat", "A cat sat on the mat.", Some("on the mat.")),
            ("recognise speech", "wreck a nice beach", Some("nice beach")),
            ("one or", "1, or 2.", Some("2.")),
            ("you are", "You, who are late", Some("late")),
            ("in to the house", "Into the house he went", Some("he went")),
            ("you are late", "Late.", None),
            ("you are late", "", None),
        ] {
            let mut agreement = Agreement::default();
            let hypothesis = format!("{told} newest");
            agreement.hypothesis(&hypothesis);
            assert_eq!(agreement.hypothesis(&hypothesis).as_deref(), Some(told));
            assert_eq!(agreement.end(text).as_deref(), rest, "{told}, {text}");
            assert_eq!(agreement.end(""), None);
        }
        // A hypothesis, too, goes on after what it has instead.
        let mut agreement = Agreement::default();
        for (text, told) in [
            ("press one to mute", None),
            ("press one to mute", Some("press one to")),
            ("press 1 to mute or unmute", None),
            ("press 1 to mute or unmute yourself", Some("mute or unmute")),
        ] {
            assert_eq!(agreement.hypothesis(text).as_deref(), told, "{text}");
        }
    }
}

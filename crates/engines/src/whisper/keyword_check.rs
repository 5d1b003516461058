//! Comparison of a text that keywords have changed with the text without them.
//!
//! A keyword that is written before its time draws the attention to the place where it was said. From there
//! the decoder goes on, and the words before are lost, or it begins anew, and they are written twice. Neither
//! is unlikely by the model's own probabilities. So a text with keywords counts only if they replace words of
//! about their own length, and all others are kept.

use super::keywords::{ENDING, STEM, letters};
use crate::wer::{Step, align, normal};

/// Returns whether a text has all words of the text without keywords but those in whose place the keywords
/// are, of which `words` are the words.
pub(super) fn replaced_only(words: &[String], without: &str, with: &str) -> bool {
    let (without, with) = (normal(without), normal(with));
    let steps = align(&without, &with);
    let changes = steps.split(|step| matches!(step, Step::Right(_))).filter(|change| !change.is_empty());
    changes.map(sides).all(|(said, heard)| {
        let is_keyword = heard.iter().any(|heard| words.iter().any(|word| is_form(heard, word)));
        is_keyword && are_alike_in_length(letters(&said.concat()), letters(&heard.concat()))
    })
}

/// Returns the words of a change, without keywords and with them.
fn sides<'a>(change: &[Step<'a>]) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut said, mut heard) = (Vec::new(), Vec::new());
    for step in change {
        if let Step::Wrong { said: word, .. } | Step::Missing(word) = step {
            said.push(*word);
        }
        if let Step::Wrong { heard: word, .. } | Step::Extra(word) = step {
            heard.push(*word);
        }
    }
    (said, heard)
}

/// Returns whether a heard word is the word of a keyword, with any ending if that is long. A language without
/// spaces has it within a longer one.
fn is_form(heard: &str, word: &str) -> bool {
    let all = word.chars().count();
    let is_spaced = word.chars().all(|letter| letter < '\u{3000}');
    if is_spaced && all < STEM {
        return heard == word;
    }
    let kept = if is_spaced { STEM.max(all.saturating_sub(ENDING)) } else { all };
    let stem: String = word.chars().take(kept).collect();
    heard.contains(&stem)
}

/// Returns whether a word may stand for what was written in its place. A name is often heard as something
/// shorter; what is longer than it was more than the name.
fn are_alike_in_length(without: usize, with: usize) -> bool {
    without <= with + with / 4 + 2 && with <= 2 * without + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_kept(keywords: &[&str], without: &str, with: &str) -> bool {
        let words: Vec<String> = keywords.iter().flat_map(|keyword| normal(keyword)).collect();
        replaced_only(&words, without, with)
    }

    #[test]
    fn a_keyword_replaces_what_is_about_as_long() {
        let keywords = ["Wisniewski", "Ndiaye", "Sofonisba Anguissola", "Ann"];
        for (without, with) in [
            ("Wish new sky repaired it.", "Wisniewski repaired it."),
            ("Captain Jai lifted the cup.", "Captain Ndiaye lifted the cup."),
            ("By Sophonisba and we saw La.", "By Sofonisba Anguissola."),
            ("And left, with new skis.", "Ann left, Wisniewskis."),
            ("Ten meters.", "10 meters."),
        ] {
            assert!(is_kept(&keywords, without, with), "{without} | {with}");
        }
    }

    #[test]
    fn other_words_are_neither_lost_nor_written_twice_nor_changed() {
        let keywords = ["Ndiaye", "Thistlewood", "Ann"];
        for (without, with) in [
            ("Captain Jai lifted the cup.", "Ndiaye."),
            ("Captain Jai lifted the cup.", "Ndiaye. Captain Ndiaye lifted the cup."),
            ("Captain Jai lifted the cup.", "Captain Ndiaye lifted a cup."),
            ("The judge adjourned the hearing.", "The judge Thistlewood adjourned the hearing."),
            ("Judge Thistle would have adjourned.", "Thistlewood adjourned."),
            ("It is annual.", "It is annually."),
        ] {
            assert!(!is_kept(&keywords, without, with), "{without} | {with}");
        }
    }

    #[test]
    fn a_keyword_is_found_within_a_text_without_spaces() {
        assert!(is_kept(&["東京"], "私は頭狂に行きます", "私は東京に行きます"));
        assert!(!is_kept(&["東京"], "私は頭狂に行きます", "私は大阪に行きます"));
    }
}

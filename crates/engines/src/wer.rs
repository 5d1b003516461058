//! Word error rates: comparison of a recognised text with the spoken text.
//!
//! Texts are compared in the form that [`normal`] returns, so that a recogniser is not charged for its
//! spelling.

/// Counts of word errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WordErrors {
    /// Number of wrong, missing and extra words: the least number of changes that turn one text into the
    /// other.
    pub errors: usize,
    /// Number of missing words, which were spoken but not recognised.
    pub missing: usize,
    /// Number of extra words, which were recognised but not spoken.
    pub extra: usize,
    /// Number of spoken words.
    pub words: usize,
}

/// A step of the alignment of the spoken text with the recognised text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A word that was recognised correctly.
    Right(&'a str),
    /// A word that was recognised as another.
    Wrong {
        /// The spoken word.
        said: &'a str,
        /// The recognised word.
        heard: &'a str,
    },
    /// A word that was not recognised.
    Missing(&'a str),
    /// A word that was not spoken.
    Extra(&'a str),
}

impl WordErrors {
    /// Compares the recognised text `heard` with the spoken text `said`. Takes a byte of memory for each
    /// pair of words: 100 MB for two texts of an hour each.
    #[must_use]
    pub fn between(said: &str, heard: &str) -> WordErrors {
        let (said, heard) = (normal(said), normal(heard));
        let steps = align(&said, &heard);
        let count = |wanted: fn(&Step<'_>) -> bool| steps.iter().filter(|step| wanted(step)).count();
        WordErrors {
            errors: count(|step| !matches!(step, Step::Right(_))),
            missing: count(|step| matches!(step, Step::Missing(_))),
            extra: count(|step| matches!(step, Step::Extra(_))),
            words: said.len(),
        }
    }

    /// Adds up two comparisons, so that long texts count for more than short ones.
    #[must_use]
    pub fn and(self, other: WordErrors) -> WordErrors {
        WordErrors {
            errors: self.errors + other.errors,
            missing: self.missing + other.missing,
            extra: self.extra + other.extra,
            words: self.words + other.words,
        }
    }

    /// Returns the errors per hundred spoken words; NaN if no words were spoken.
    #[must_use]
    pub fn percent(self) -> f64 {
        match self.words {
            0 => f64::NAN,
            words => 100.0 * self.errors as f64 / words as f64,
        }
    }
}

/// Step by which a cell of the table of alignments is reached.
#[derive(Clone, Copy)]
enum By {
    Both,
    Said,
    Heard,
}

/// Returns the shortest alignment of the spoken with the recognised text (Wagner and Fischer, 1974).
#[must_use]
pub fn align<'a>(said: &'a [String], heard: &'a [String]) -> Vec<Step<'a>> {
    let (by, width) = (shortest_steps(said, heard), heard.len() + 1);
    let (mut i, mut j) = (said.len(), heard.len());
    let mut steps = Vec::with_capacity(i.max(j));
    while i > 0 || j > 0 {
        steps.push(match by[i * width + j] {
            By::Both => {
                (i, j) = (i - 1, j - 1);
                if said[i] == heard[j] {
                    Step::Right(&said[i])
                } else {
                    Step::Wrong { said: &said[i], heard: &heard[j] }
                }
            }
            By::Said => {
                i -= 1;
                Step::Missing(&said[i])
            }
            By::Heard => {
                j -= 1;
                Step::Extra(&heard[j])
            }
        });
    }
    steps.reverse();
    steps
}

/// Returns the table of alignments, row by row: for each number of spoken words and of recognised words, the
/// last step of the shortest alignment of that many.
fn shortest_steps(said: &[String], heard: &[String]) -> Vec<By> {
    let width = heard.len() + 1;
    let mut by = vec![By::Heard; (said.len() + 1) * width];
    let mut costs: Vec<usize> = (0..width).collect();
    for (i, word) in said.iter().enumerate() {
        let mut diagonal = costs[0];
        costs[0] = i + 1;
        by[(i + 1) * width] = By::Said;
        for (j, other) in heard.iter().enumerate() {
            let both = diagonal + usize::from(word != other);
            diagonal = costs[j + 1];
            let (said, heard) = (diagonal + 1, costs[j] + 1);
            let (cost, step) = match both.min(said).min(heard) {
                cost if cost == both => (cost, By::Both),
                cost if cost == said => (cost, By::Said),
                cost => (cost, By::Heard),
            };
            costs[j + 1] = cost;
            by[(i + 1) * width + j + 1] = step;
        }
    }
    by
}

/// Returns the words of a text in the form in which they are compared: lower case, without punctuation
/// and apostrophes, hyphens as spaces, ё as е, numbers up to twelve spelt in English or Russian, and "Mr"
/// and "Mrs" spelt. In languages without spaces a sentence is one word, so their rates mean little.
#[must_use]
pub fn normal(text: &str) -> Vec<String> {
    let russian = text.chars().any(|c| ('а'..='я').contains(&c));
    let plain: String = text
        .to_lowercase()
        .replace('ё', "е")
        .replace(['\'', '’'], "")
        .chars()
        .map(|c| if c.is_alphanumeric() { c } else { ' ' })
        .collect();
    plain.split_whitespace().map(|word| spelt(word, russian).to_owned()).collect()
}

fn spelt(word: &str, russian: bool) -> &str {
    const ENGLISH: [&str; 13] = [
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
        "twelve",
    ];
    const RUSSIAN: [&str; 13] = [
        "ноль",
        "один",
        "два",
        "три",
        "четыре",
        "пять",
        "шесть",
        "семь",
        "восемь",
        "девять",
        "десять",
        "одиннадцать",
        "двенадцать",
    ];
    let names = if russian { RUSSIAN } else { ENGLISH };
    match word {
        "mr" => "mister",
        "mrs" => "missus",
        _ => word.parse::<usize>().ok().and_then(|number| names.get(number).copied()).unwrap_or(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_in_words() {
        let errors = WordErrors::between("mister john's touch-tone seven", "Mr. Johns, touch tone 7!");
        assert_eq!(errors, WordErrors { words: 5, ..WordErrors::default() });
        let errors = WordErrors::between("один два три четыре", "1, 2, 4 пять");
        assert_eq!((errors.errors, errors.words), (2, 4));
        let pooled = errors.and(WordErrors::between("a b c d", "a b c"));
        assert_eq!((pooled.errors, pooled.missing, pooled.words, pooled.percent()), (3, 1, 8, 37.5));
    }

    #[test]
    fn silence_has_errors_and_no_rate() {
        let invented = WordErrors::between("", "Thank you.");
        assert_eq!(invented, WordErrors { errors: 2, extra: 2, missing: 0, words: 0 });
        assert!(invented.percent().is_nan());
        assert_eq!(WordErrors::between("", " "), WordErrors::default());
    }

    #[test]
    fn each_word_has_its_step() {
        let (said, heard) = (normal("go forward ten metres now"), normal("oh go foreword 10 metres"));
        use Step::{Extra, Missing, Right, Wrong};
        let expected = [
            Extra("oh"),
            Right("go"),
            Wrong { said: "forward", heard: "foreword" },
            Right("ten"),
            Right("metres"),
            Missing("now"),
        ];
        assert_eq!(align(&said, &heard), expected);
    }

    /// Compares with the definition, on all short texts of two words.
    #[test]
    fn no_way_is_shorter() {
        fn least(said: &[String], heard: &[String]) -> usize {
            match (said, heard) {
                ([], rest) | (rest, []) => rest.len(),
                ([a, said @ ..], [b, heard @ ..]) if a == b => least(said, heard),
                ([_, shorter @ ..], [_, rest @ ..]) => {
                    1 + least(shorter, rest).min(least(said, rest)).min(least(shorter, heard))
                }
            }
        }
        let texts: Vec<Vec<String>> = (0..6u32)
            .flat_map(|length| (0..1 << length).map(move |bits: u32| (length, bits)))
            .map(|(length, bits)| {
                (0..length).map(|at| ["a", "b"][(bits >> at & 1) as usize].to_owned()).collect()
            })
            .collect();
        for said in &texts {
            for heard in &texts {
                let steps = align(said, heard);
                let errors = steps.iter().filter(|step| !matches!(step, Step::Right(_))).count();
                assert_eq!(errors, least(said, heard), "{said:?} {heard:?}");
            }
        }
    }
}

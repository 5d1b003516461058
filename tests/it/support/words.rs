//! Word error rates.

/// Errors against the words said.
#[derive(Clone, Copy, Default)]
pub(crate) struct WordErrors {
    /// Words wrong, missing or too many.
    pub(crate) errors: usize,
    /// Words in the reference.
    pub(crate) words: usize,
}

impl WordErrors {
    /// Compares what was heard with what was said.
    pub(crate) fn between(said: &str, heard: &str) -> WordErrors {
        let (said, heard) = (normal(said), normal(heard));
        let mut row: Vec<usize> = (0..=heard.len()).collect();
        for (i, word) in said.iter().enumerate() {
            let mut diagonal = row[0];
            row[0] = i + 1;
            for (j, other) in heard.iter().enumerate() {
                let substituted = diagonal + usize::from(word != other);
                diagonal = row[j + 1];
                row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
            }
        }
        WordErrors { errors: row[heard.len()], words: said.len() }
    }

    /// Pools two comparisons.
    pub(crate) fn and(self, other: WordErrors) -> WordErrors {
        WordErrors { errors: self.errors + other.errors, words: self.words + other.words }
    }

    /// Errors per hundred words.
    pub(crate) fn percent(self) -> f64 {
        100.0 * self.errors as f64 / self.words as f64
    }
}

/// The words of a text, as they are compared: lower case, without punctuation and apostrophes, ё as е, hyphens as
/// spaces, small numbers and "Mr" spelt.
pub(crate) fn normal(text: &str) -> Vec<String> {
    let cyrillic = text.chars().any(|c| ('а'..='я').contains(&c));
    let plain: String = text
        .to_lowercase()
        .replace('ё', "е")
        .replace(['\'', '’'], "")
        .chars()
        .map(|c| if c.is_alphanumeric() { c } else { ' ' })
        .collect();
    plain.split_whitespace().map(|word| spelt(word, cyrillic).to_owned()).collect()
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

#[test]
fn errors_are_counted_in_words() {
    let errors = WordErrors::between("mister john's touch-tone seven", "Mr. Johns, touch tone 7!");
    assert_eq!((errors.errors, errors.words), (0, 5));
    let errors = WordErrors::between("один два три четыре", "1, 2, 4 пять");
    assert_eq!((errors.errors, errors.words), (2, 4));
}

//! The plain form of recognised text.

/// Returns `text` in lower case without punctuation, as the service writes its `text` field. Marks inside a
/// word (`don't`, `кое-что`) stay.
pub(crate) fn plain(text: &str) -> String {
    let words = text.split_whitespace().map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_keeps_words_whole() {
        assert_eq!(plain("Привет, Алиса. — Don't stop!"), "привет алиса don't stop");
    }
}

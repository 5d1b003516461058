//! Hints of clients, within the bounds of our own protocol.

use voxline::protocol::{MAX_KEYWORD_BYTES, MAX_KEYWORDS, MAX_PROMPT_BYTES};

/// Returns the keywords that a recognition takes of those that a client names. The rest is ignored: these
/// clients know nothing of our bounds.
pub(super) fn keywords(named: impl Iterator<Item = String>) -> Vec<String> {
    let is_word = |keyword: &String| !keyword.trim().is_empty() && keyword.len() <= MAX_KEYWORD_BYTES;
    named.filter(is_word).take(MAX_KEYWORDS).collect()
}

/// Returns the end of a prompt that is longer than a recognition takes: clients send all that was said
/// before, as OpenAI documents that only the end counts.
pub(super) fn end_of(prompt: &str) -> &str {
    &prompt[prompt.ceil_char_boundary(prompt.len().saturating_sub(MAX_PROMPT_BYTES))..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use voxline::protocol::check_hints;

    #[test]
    fn keywords_are_bounded() {
        let many = keywords((0..1_000).map(|number| format!("word {number}")));
        assert_eq!(many.len(), MAX_KEYWORDS);
        assert_eq!(check_hints(None, &many), Ok(()));
        let longest = "b".repeat(MAX_KEYWORD_BYTES);
        let long = ["a".to_owned(), format!("{longest}b"), longest.clone()];
        assert_eq!(keywords(long.into_iter()), ["a".to_owned(), longest]);
        assert!(keywords([" ".to_owned(), String::new()].into_iter()).is_empty());
    }

    #[test]
    fn the_end_of_a_prompt_counts() {
        let prompt = format!("a{}", "я".repeat(MAX_PROMPT_BYTES / 2));
        assert_eq!(end_of(&prompt), &prompt[1..]);
        assert_eq!(end_of(&format!("{prompt}b")).len(), MAX_PROMPT_BYTES - 1);
        assert_eq!(end_of("Dear Sir,"), "Dear Sir,");
    }
}

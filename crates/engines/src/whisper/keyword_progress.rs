//! Keywords in a beam search, of which each beam has a progress of its own.
//!
//! Nothing is taken back here, as [`Spotting`](super::keywords::Spotting) does: the text without the keyword
//! is another beam. A beam within a keyword is kept beside the others while the keyword costs no more than
//! its bounds. A keyword that comes to its end gives its text back what it has cost, and a preference.

use super::keywords::{BOUND, FIRST_BOUND, Keywords, is_word};
use super::tokens::Tokens;

/// Log-probability by which a text with a complete keyword is preferred, beyond what the keyword has cost:
/// the tokens of a rare name are less certain than those of the common words that it is taken for.
const PREFERENCE: f32 = 2.0;

/// Progress of one text in a keyword.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct KeywordProgress {
    /// Node of the keyword that is being written.
    node: Option<usize>,
    /// Cost of this keyword so far.
    cost: f32,
    /// Cost of the complete keywords.
    spent: f32,
    /// Preference for the complete keywords that cost anything.
    preference: f32,
}

/// Logits of the tokens that may follow a text.
#[derive(Clone, Copy)]
pub(super) struct Following<'a> {
    pub(super) text: &'a [u32],
    pub(super) logits: &'a [f32],
    pub(super) likeliest: u32,
}

impl Following<'_> {
    /// Returns the difference in log-probability between the likeliest token and this one.
    fn cost(&self, token: u32) -> f32 {
        self.logits[self.likeliest as usize] - self.logits[token as usize]
    }
}

impl KeywordProgress {
    /// Returns the cost of the complete keywords.
    pub(super) fn spent(&self) -> f32 {
        self.spent
    }

    /// Returns what the complete keywords add to the rank of the text.
    pub(super) fn credit(&self) -> f32 {
        self.spent + self.preference
    }

    /// Returns what the keywords would add if the one that is being written came to its end.
    pub(super) fn promise(&self) -> f32 {
        self.credit() + if self.is_open() { self.cost + PREFERENCE } else { 0.0 }
    }

    /// Returns the measure by which texts within a keyword are compared: half the cost counts, so that of
    /// keywords that begin alike the likelier one is first.
    pub(super) fn prospect(&self) -> f32 {
        self.credit() + self.cost / 2.0
    }

    /// Returns whether a keyword that has not come to its end costs anything so far.
    pub(super) fn is_open(&self) -> bool {
        self.cost > 0.0
    }

    /// Returns whether a keyword costs anything, or has.
    pub(super) fn has_cost(&self) -> bool {
        self.promise() > 0.0
    }

    /// Returns the unlikely tokens by which a keyword begins or goes on within its bounds.
    pub(super) fn favoured(
        self,
        keywords: &Keywords,
        tokens: &Tokens,
        following: Following<'_>,
    ) -> impl Iterator<Item = u32> {
        let roots = keywords.roots(tokens, following.text).iter().copied();
        let next = self.node.into_iter().chain(roots).flat_map(|node| keywords.following(node));
        next.filter(move |token| {
            let cost = following.cost(*token);
            cost > 0.0 && cost <= BOUND && self.after(keywords, tokens, following, *token).is_open()
        })
    }

    /// Returns the progress of the text with another token.
    pub(super) fn after(
        self,
        keywords: &Keywords,
        tokens: &Tokens,
        following: Following<'_>,
        token: u32,
    ) -> KeywordProgress {
        let mut progress = self;
        let child = self.node.and_then(|node| keywords.child(node, token));
        if let Some(node) = self.node {
            let is_whole =
                keywords.ends(node) && !(self.is_open() && keywords.is_other_word(tokens, node, token));
            if is_whole || child.is_none() && keywords.is_inflected(tokens, node, token) {
                progress.complete();
            }
        }
        if progress.take(child, tokens, following, token) {
            return progress;
        }
        // The keyword before, if it is not complete, counts for nothing.
        progress.cost = 0.0;
        let mut roots = keywords.roots(tokens, following.text).iter();
        let begun = roots.find_map(|root| keywords.child(*root, token));
        if !progress.take(begun, tokens, following, token) {
            progress.node = None;
        }
        progress
    }

    /// Returns the progress within a keyword that has cost this much.
    #[cfg(test)]
    pub(super) fn within_keyword(cost: f32) -> KeywordProgress {
        KeywordProgress { cost, ..KeywordProgress::default() }
    }

    fn complete(&mut self) {
        if self.is_open() {
            self.spent += std::mem::take(&mut self.cost);
            self.preference += PREFERENCE;
        }
    }

    /// Moves to a node, if there is one, and `token` is within the bounds of a keyword.
    fn take(&mut self, node: Option<usize>, tokens: &Tokens, following: Following<'_>, token: u32) -> bool {
        let cost = following.cost(token);
        let bound = if self.is_open() { BOUND - self.cost } else { FIRST_BOUND };
        let may_begin = self.is_open() || is_word(tokens, following.likeliest);
        if node.is_none() || cost > bound || cost > 0.0 && !may_begin {
            return false;
        }
        self.node = node;
        self.cost += cost;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models_dir::models_dir;

    fn vocabulary() -> Tokens {
        let path = models_dir().join("whisper-base/vocabulary.txt");
        Tokens::parse(&std::fs::read_to_string(path).expect("the model is there"))
            .expect("it is a vocabulary")
    }

    /// A step of a text: a token, what it costs, and the token that is likeliest.
    type Written<'a> = (&'a str, f32, &'a str);

    /// Returns the progress after each step; a token without a piece is the end.
    fn progress(keyword: &str, steps: &[Written<'_>]) -> Vec<KeywordProgress> {
        let tokens = vocabulary();
        let keywords = Keywords::new(&tokens, [keyword]);
        let token = |piece: &str| match tokens.encode(piece)[..] {
            [] => tokens.end,
            [token] => token,
            _ => panic!("'{piece}' is not one token"),
        };
        let (mut text, mut progress) = (Vec::new(), KeywordProgress::default());
        let after = steps.iter().map(|(piece, cost, likeliest)| {
            let mut logits = vec![-20.0; tokens.end as usize + 1];
            logits[token(piece) as usize] = -cost;
            logits[token(likeliest) as usize] = 0.0;
            let following = Following { text: &text, logits: &logits, likeliest: token(likeliest) };
            let favours = progress.favoured(&keywords, &tokens, following).any(|next| next == token(piece));
            progress = progress.after(&keywords, &tokens, following, token(piece));
            assert_eq!(favours, progress.is_open() && *cost > 0.0, "{piece}");
            text.push(token(piece));
            progress
        });
        after.collect()
    }

    #[test]
    fn a_complete_keyword_gives_back_its_cost() {
        for end in [".", " spoke", ""] {
            let steps = [(" the", 0.0, " the"), (" Kub", 2.0, " Cuban"), ("an", 1.0, "a"), (end, 0.0, end)];
            let [_, begun, written, complete] = progress("Kuban", &steps)[..] else { panic!("four steps") };
            assert!(begun.is_open() && begun.credit() == 0.0);
            assert_eq!((written.promise(), written.credit()), (3.0 + PREFERENCE, 0.0));
            assert_eq!((complete.spent(), complete.credit()), (3.0, 3.0 + PREFERENCE), "{end}");
            assert!(!complete.is_open() && complete.has_cost());
        }
    }

    #[test]
    fn half_a_keyword_and_a_part_of_another_word_give_nothing() {
        let half = progress("Kuban", &[(" Kub", 2.0, " Cuban"), (" spoke", 0.0, " spoke")]);
        assert!(half[0].is_open());
        assert_eq!(half[1], KeywordProgress::default());
        let other = progress("Ann", &[(" Ann", 1.0, " And"), ("ual", 0.0, "ual")]);
        assert!(other[0].is_open());
        assert_eq!(other[1], KeywordProgress::default());
    }

    #[test]
    fn a_keyword_keeps_to_its_bounds() {
        let far = progress("Kuban", &[(" Kub", FIRST_BOUND + 0.1, " Cuban")]);
        assert_eq!(far[0], KeywordProgress::default());
        let farther = progress("Kuban", &[(" Kub", 2.0, " Cuban"), ("an", BOUND - 1.9, "a")]);
        assert_eq!(farther[1], KeywordProgress::default());
        // It replaces a word, not the end of a sentence.
        let appended = progress("Kuban", &[(" Kub", 1.0, ".")]);
        assert_eq!(appended[0], KeywordProgress::default());
    }

    #[test]
    fn a_likely_keyword_costs_nothing() {
        let likely = progress("Kuban", &[(" Kub", 0.0, " Kub"), ("an", 0.0, "an"), (".", 0.0, ".")]);
        assert!(likely.iter().all(|progress| !progress.has_cost()));
    }

    #[test]
    fn a_long_keyword_may_have_another_ending() {
        let steps = [(" К", 0.0, " К"), ("ов", 2.0, "а"), ("аль", 0.0, "аль"), ("ского", 0.0, "ского")];
        let inflected = progress("Ковальский", &steps);
        assert_eq!(inflected[3].spent(), 2.0);
    }
}

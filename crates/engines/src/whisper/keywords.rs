//! Keywords: words and phrases that the decoding favours where they may have been said.
//!
//! The tokens of the keywords form a trie. Where a keyword may begin, and while one is being written, its
//! next token replaces the likeliest one as long as the keyword costs no more than [`BOUND`]. A keyword that
//! does not come to its end within the bound is taken back, and the text continues as it would have without.
//! So a keyword appears whole or not at all, but for the ending of a long one, and only where the model
//! itself found it possible. [`replaced_only`](super::keyword_check::replaced_only) then sees to it that all
//! other words are kept.

use super::tokens::Tokens;
use crate::wer::normal;

/// Bound on the cost of one keyword: the sum, over its tokens, of the difference in log-probability between
/// the likeliest token and the one taken. With 9 and a [`FIRST_BOUND`] of 7, Piper's voice had 16 of 20 names
/// heard in place of 11 (5 without keywords), but sentences were written twice; with 8 and 6, one sentence of
/// espeak-ng's was lost but for its name.
pub(super) const BOUND: f32 = 6.0;
/// Bound on the cost of a keyword's first unlikely token.
pub(super) const FIRST_BOUND: f32 = 5.0;
/// Number of keywords to try at one place of a text. Each costs the decoding of a few tokens.
pub(super) const TRIES: usize = 3;
/// Number of letters from which a keyword is taken for a stem, which may have an ending. A shorter keyword
/// may be the beginning of another word.
pub(super) const STEM: usize = 6;
/// Number of letters by which a stem may be shorter than its keyword, as Russian case endings replace each
/// other.
pub(super) const ENDING: usize = 4;

/// Node from which keywords with a space before them begin.
const SPACED: usize = 0;
/// Node from which keywords without a space begin.
const BARE: usize = 1;

/// A trie of the tokens of keywords.
#[derive(Debug)]
pub(super) struct Keywords {
    nodes: Vec<Node>,
    /// Words of the keywords, in the form in which texts are compared.
    words: Vec<String>,
}

#[derive(Debug)]
struct Node {
    children: Vec<(u32, usize)>,
    /// Number of letters from the beginning of the keyword.
    letters: usize,
    /// Number of letters to the nearest end of a keyword.
    rest: usize,
    /// `true` if a keyword ends here.
    ends: bool,
}

impl Keywords {
    /// Creates the trie of keywords, each as given and with a capital.
    pub(super) fn new<'a>(tokens: &Tokens, keywords: impl IntoIterator<Item = &'a str>) -> Keywords {
        let mut trie = Keywords::default();
        for keyword in keywords {
            let words = keyword.split_whitespace().collect::<Vec<_>>().join(" ");
            if letters(&words) == 0 {
                continue;
            }
            for form in [capitalised(&words), words] {
                trie.insert(tokens, BARE, &form);
                trie.insert(tokens, SPACED, &format!(" {form}"));
            }
            trie.words.extend(normal(keyword));
        }
        trie
    }

    /// Returns the words of the keywords, in the form in which texts are compared.
    pub(super) fn words(&self) -> &[String] {
        &self.words
    }

    /// Returns whether there is no keyword.
    pub(super) fn is_empty(&self) -> bool {
        self.nodes[SPACED].children.is_empty()
    }

    fn insert(&mut self, tokens: &Tokens, root: usize, form: &str) {
        let all = letters(form);
        let (mut node, mut bytes) = (root, Vec::new());
        for token in tokens.encode(form) {
            bytes.extend_from_slice(tokens.piece(token));
            let letters = letters(&String::from_utf8_lossy(&bytes));
            node = self.child(node, token).unwrap_or_else(|| {
                let new = self.nodes.len();
                self.nodes.push(Node::new(letters));
                self.nodes[node].children.push((token, new));
                new
            });
            let rest = &mut self.nodes[node].rest;
            *rest = all.saturating_sub(letters).min(*rest);
        }
        self.nodes[node].ends = true;
    }

    /// Returns the node to which a token leads.
    pub(super) fn child(&self, node: usize, token: u32) -> Option<usize> {
        self.nodes[node].children.iter().find(|(known, _)| *known == token).map(|(_, child)| *child)
    }

    /// Returns the tokens that lead on from a node.
    pub(super) fn following(&self, node: usize) -> impl Iterator<Item = u32> {
        self.nodes[node].children.iter().map(|(token, _)| *token)
    }

    /// Returns whether a keyword ends at a node.
    pub(super) fn ends(&self, node: usize) -> bool {
        self.nodes[node].ends
    }

    /// Returns whether the next token makes another word of the short keyword that ends at a node.
    pub(super) fn is_other_word(&self, tokens: &Tokens, node: usize, next: u32) -> bool {
        self.nodes[node].letters < STEM && continues_word(tokens, next)
    }

    /// Returns whether the next token gives the stem of a keyword another ending.
    pub(super) fn is_inflected(&self, tokens: &Tokens, node: usize, next: u32) -> bool {
        let Node { letters, rest, .. } = self.nodes[node];
        letters >= STEM && rest <= ENDING && continues_word(tokens, next)
    }

    /// Returns the nodes from which a keyword may begin after a text.
    pub(super) fn roots(&self, tokens: &Tokens, text: &[u32]) -> &'static [usize] {
        let last = text.last().map(|token| String::from_utf8_lossy(tokens.piece(*token)).chars().next_back());
        // The languages without spaces that matter here are written in characters from U+3000 on.
        let is_free = last.flatten().is_none_or(|last| !last.is_alphanumeric() || last >= '\u{3000}');
        if is_free { &[SPACED, BARE] } else { &[SPACED] }
    }
}

impl Default for Keywords {
    fn default() -> Keywords {
        Keywords { nodes: vec![Node::new(0), Node::new(0)], words: Vec::new() }
    }
}

impl Node {
    fn new(letters: usize) -> Node {
        Node { children: Vec::new(), letters, rest: usize::MAX, ends: false }
    }
}

pub(super) fn letters(text: &str) -> usize {
    text.chars().filter(|c| c.is_alphanumeric()).count()
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Returns the words of a prompt that are names by their capital. The first word of a sentence has one
/// anyway.
pub(super) fn names(prompt: &str) -> impl Iterator<Item = &str> {
    let mut begins = true;
    prompt.split_whitespace().filter_map(move |word| {
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
        let is_name = !begins && bare.starts_with(char::is_uppercase) && letters(bare) > 2;
        begins = word.ends_with(['.', '!', '?', ':', '…']);
        is_name.then_some(bare)
    })
}

/// Progress of the keywords in one text.
#[derive(Debug, Default)]
pub(super) struct Spotting {
    /// Node of the keyword that is being written.
    node: Option<usize>,
    /// Cost of this keyword so far.
    cost: f32,
    /// First unlikely token of this keyword, or the place where one was taken back.
    deviation: Option<Deviation>,
    /// Cost of the complete keywords.
    spent: f32,
}

/// A place of a text at which a keyword departed from what is likeliest.
#[derive(Debug)]
struct Deviation {
    /// Number of tokens before it.
    at: usize,
    /// Node before it; `None` if the keyword begins there.
    node: Option<usize>,
    logits: Vec<f32>,
    /// Tokens that were tried.
    tried: Vec<u32>,
}

/// The next step of a text.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// The token is the next of a keyword.
    Take(u32),
    /// The token is chosen as without keywords.
    Free,
    /// The text returns to this length, and to the logits that were in force there.
    Return(usize, Vec<f32>),
}

impl Spotting {
    /// Returns the cost of all keywords of the text.
    pub(super) fn spent(&self) -> f32 {
        self.spent
    }

    /// Returns whether a keyword costs anything, or has: otherwise the text is that without keywords.
    pub(super) fn has_cost(&self) -> bool {
        self.spent + self.cost > 0.0
    }

    /// Decides about the token after `text`. `logits` are those of the tokens that are allowed, among which
    /// `likeliest` is the first.
    pub(super) fn step(
        &mut self,
        keywords: &Keywords,
        tokens: &Tokens,
        text: &[u32],
        logits: &[f32],
        likeliest: u32,
    ) -> Step {
        if let Some(node) = self.node {
            let is_other_word = self.deviation.is_some() && keywords.is_other_word(tokens, node, likeliest);
            let is_written = keywords.ends(node) && !is_other_word;
            if is_written {
                self.complete(text.len());
            }
            if let Some(next) = self.next(keywords, tokens, &[node], text, logits, likeliest) {
                return next;
            }
            if !is_written && !keywords.is_inflected(tokens, node, likeliest) {
                if let Some(step) = self.take_back(text.len()) {
                    return step;
                }
            } else if !is_written {
                self.complete(text.len());
            }
            self.node = None;
            self.cost = 0.0;
        }
        let roots = keywords.roots(tokens, text);
        let begun = self.next(keywords, tokens, roots, text, logits, likeliest);
        if begun.is_none() {
            self.deviation = None;
        }
        begun.unwrap_or(Step::Free)
    }

    /// Notes the token that follows `text`.
    pub(super) fn read(&mut self, keywords: &Keywords, tokens: &Tokens, text: &[u32], token: u32) {
        let within = self.node.and_then(|node| keywords.child(node, token));
        self.node = within.or_else(|| {
            let mut roots = keywords.roots(tokens, text).iter();
            roots.find_map(|root| keywords.child(*root, token))
        });
    }

    /// Takes the likeliest continuation from these nodes, if one is within the bounds.
    fn next(
        &mut self,
        keywords: &Keywords,
        tokens: &Tokens,
        nodes: &[usize],
        text: &[u32],
        logits: &[f32],
        likeliest: u32,
    ) -> Option<Step> {
        let here = self.deviation.as_ref().filter(|deviation| deviation.at == text.len());
        let tried: &[u32] = here.map_or(&[], |here| &here.tried);
        if tried.len() >= TRIES {
            return None;
        }
        let children = nodes.iter().flat_map(|node| keywords.following(*node));
        let untried = children.filter(|token| !tried.contains(token));
        let token = untried.max_by(|a, b| logits[*a as usize].total_cmp(&logits[*b as usize]))?;
        let cost = logits[likeliest as usize] - logits[token as usize];
        if cost <= 0.0 {
            return Some(Step::Take(token));
        }
        let is_first = self.deviation.as_ref().is_none_or(|deviation| deviation.at == text.len());
        // A keyword replaces words, not the end of a sentence or of the text: there it would be said twice.
        if is_first && (cost > FIRST_BOUND || !is_word(tokens, likeliest)) || self.cost + cost > BOUND {
            return None;
        }
        match &mut self.deviation {
            Some(deviation) if is_first => deviation.tried.push(token),
            Some(_) => {}
            None => {
                let (at, node) = (text.len(), self.node);
                self.deviation = Some(Deviation { at, node, logits: logits.to_vec(), tried: vec![token] });
            }
        }
        self.cost += cost;
        Some(Step::Take(token))
    }

    /// Ends a keyword that is written in a text of `length` tokens.
    fn complete(&mut self, length: usize) {
        self.spent += std::mem::take(&mut self.cost);
        self.deviation.take_if(|deviation| deviation.at < length);
    }

    /// Returns to the place where the keyword departed from what is likeliest, if it did.
    fn take_back(&mut self, length: usize) -> Option<Step> {
        let deviation = self.deviation.as_mut().filter(|deviation| deviation.at < length)?;
        self.node = deviation.node;
        self.cost = 0.0;
        Some(Step::Return(deviation.at, deviation.logits.clone()))
    }
}

/// Returns whether a token is a word or a part of one, rather than a sign or the end.
pub(super) fn is_word(tokens: &Tokens, token: u32) -> bool {
    tokens.piece(token).iter().any(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii())
}

fn continues_word(tokens: &Tokens, token: u32) -> bool {
    String::from_utf8_lossy(tokens.piece(token)).starts_with(char::is_alphabetic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models_dir::models_dir;

    /// Logit of a token that is not listed.
    const UNLIKELY: f32 = -20.0;

    fn vocabulary() -> Tokens {
        let path = models_dir().join("whisper-base/vocabulary.txt");
        Tokens::parse(&std::fs::read_to_string(path).expect("the model is there"))
            .expect("it is a vocabulary")
    }

    /// A text in the making, by a model that is given as the logits of the continuations of each text.
    struct Writing<'a> {
        tokens: &'a Tokens,
        keywords: Keywords,
        /// Texts, each with its likeliest continuations.
        model: &'a [(&'a str, &'a [(&'a str, f32)])],
    }

    impl Writing<'_> {
        fn token(&self, piece: &str) -> u32 {
            match self.tokens.encode(piece)[..] {
                [] => self.tokens.end,
                [token] => token,
                _ => panic!("'{piece}' is not one token"),
            }
        }

        fn logits(&self, text: &str) -> Vec<f32> {
            let mut logits = vec![UNLIKELY; self.tokens.end as usize + 1];
            let known = self.model.iter().find(|(known, _)| *known == text);
            for (piece, logit) in known.map_or(&[("", 0.0)][..], |(_, next)| next) {
                logits[self.token(piece) as usize] = *logit;
            }
            logits
        }

        fn text(&self, written: &[u32]) -> String {
            let bytes: Vec<u8> =
                written.iter().flat_map(|token| self.tokens.piece(*token)).copied().collect();
            String::from_utf8(bytes).unwrap()
        }

        /// Returns the text, and what its keywords cost.
        fn write(&self) -> (String, f32) {
            let (mut written, mut spotting) = (Vec::new(), Spotting::default());
            let mut returned = None;
            for _ in 0..100 {
                let logits = returned.take().unwrap_or_else(|| self.logits(&self.text(&written)));
                let likeliest = (0..).zip(&logits).max_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap().0;
                let next = match spotting.step(&self.keywords, self.tokens, &written, &logits, likeliest) {
                    Step::Take(token) => token,
                    Step::Free => likeliest,
                    Step::Return(length, logits) => {
                        written.truncate(length);
                        assert_eq!(logits, self.logits(&self.text(&written)));
                        returned = Some(logits);
                        continue;
                    }
                };
                if next == self.tokens.end {
                    return (self.text(&written), spotting.spent());
                }
                spotting.read(&self.keywords, self.tokens, &written, next);
                written.push(next);
            }
            panic!("the text does not end: {}", self.text(&written));
        }
    }

    /// Writes with these keywords.
    fn write(keywords: &[&str], model: &[(&str, &[(&str, f32)])]) -> (String, f32) {
        let tokens = vocabulary();
        let keywords = Keywords::new(&tokens, keywords.iter().copied());
        Writing { tokens: &tokens, keywords, model }.write()
    }

    /// A model that hears "Cuban", or "Kuban" at a cost of 2.
    const HAVANA: &[(&str, &[(&str, f32)])] =
        &[("", &[(" the", 0.0)]), (" the", &[(" Cuban", 0.0), (" Kub", -2.0)]), (" the Kub", &[("an", 0.0)])];

    #[test]
    fn a_keyword_replaces_what_is_likelier_at_a_bounded_cost() {
        assert_eq!(write(&[], HAVANA), (" the Cuban".to_owned(), 0.0));
        for keyword in ["Kuban", " kuban "] {
            assert_eq!(write(&[keyword], HAVANA), (" the Kuban".to_owned(), 2.0), "{keyword}");
        }
        let unlikely: &[(&str, f32)] = &[(" Cuban", 0.0), (" Kub", -FIRST_BOUND - 0.1)];
        let model = [HAVANA[0], (" the", unlikely), HAVANA[2]];
        assert_eq!(write(&["Kuban"], &model), (" the Cuban".to_owned(), 0.0));
        let rest: &[(&str, f32)] = &[("e", 0.0), ("an", 2.0 - BOUND - 0.1)];
        let model = [HAVANA[0], HAVANA[1], (" the Kub", rest)];
        assert_eq!(write(&["Kuban"], &model), (" the Cuban".to_owned(), 0.0));
    }

    #[test]
    fn half_a_keyword_is_taken_back_and_another_is_tried() {
        let model: &[(&str, &[(&str, f32)])] = &[
            ("", &[(" Cuban", 0.0), (" K", -1.0), (" Kub", -2.0)]),
            (" K", &[("it", 0.0)]),
            (" Kub", &[("an", -0.0)]),
        ];
        assert_eq!(write(&["Kowalski"], model), (" Cuban".to_owned(), 0.0));
        assert_eq!(write(&["Kowalski", "Kuban"], model), (" Kuban".to_owned(), 2.0));
    }

    #[test]
    fn a_likely_beginning_costs_nothing_and_stays() {
        let model: &[(&str, &[(&str, f32)])] = &[
            ("", &[(" K", 0.0)]),
            (" K", &[("ow", 0.0)]),
            (" Kow", &[("l", 0.0), ("als", -3.0)]),
            (" Kowals", &[("ki", 0.0)]),
        ];
        assert_eq!(write(&["Kowalski"], model), (" Kowalski".to_owned(), 3.0));
        let model = [model[0], model[1], model[2], (" Kowals", &[(" to", 0.0)][..])];
        assert_eq!(write(&["Kowalski"], &model), (" Kowl".to_owned(), 0.0));
    }

    #[test]
    fn a_short_keyword_is_a_word_and_a_long_one_may_be_a_stem() {
        let model: &[(&str, &[(&str, f32)])] =
            &[("", &[(" And", 0.0), (" Ann", -1.0)]), (" Ann", &[("ual", 0.0)])];
        assert_eq!(write(&["Ann"], model), (" And".to_owned(), 0.0));
        let russian: &[(&str, &[(&str, f32)])] = &[
            ("", &[(" К", 0.0)]),
            (" К", &[("а", 0.0), ("ов", -2.0)]),
            (" Ков", &[("аль", 0.0)]),
            (" Коваль", &[("ского", 0.0)]),
        ];
        assert_eq!(write(&["Ковальский"], russian), (" Ковальского".to_owned(), 2.0));
    }

    #[test]
    fn a_keyword_is_not_appended_to_what_was_said() {
        let model: &[(&str, &[(&str, f32)])] =
            &[("", &[(" Anna", 0.0)]), (" Anna", &[("", 0.0), (" K", -1.0)])];
        assert_eq!(write(&["Anna Kowalska", "Kuban"], model), (" Anna".to_owned(), 0.0));
        let sentence: &[(&str, &[(&str, f32)])] = &[
            ("", &[(" Anna", 0.0)]),
            (" Anna", &[(".", 0.0), (" Kub", -1.0)]),
            (" Anna Kub", &[("an", 0.0)]),
        ];
        assert_eq!(write(&["Kuban"], sentence), (" Anna.".to_owned(), 0.0));
    }

    #[test]
    fn names_in_a_prompt_are_within_sentences() {
        let found: Vec<&str> =
            names("We met Anna Kowalska in «Oslo». She left; NATO: Then Al came.").collect();
        assert_eq!(found, ["Anna", "Kowalska", "Oslo", "NATO"]);
    }
}

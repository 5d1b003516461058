//! The tokens of a source file.

/// A piece of source text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    /// `::`
    Separator,
    Sign(char),
}

/// Splits source text into tokens, without comments and literals.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let (mut tokens, mut at) = (Vec::new(), 0);
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    while let Some(&c) = chars.get(at) {
        let next = chars.get(at + 1).copied().unwrap_or_default();
        match c {
            '/' if next == '/' => at += chars[at..].iter().take_while(|c| **c != '\n').count(),
            '/' if next == '*' => at = end_of_comment(&chars, at),
            '"' => at = end_of_string(&chars, at),
            'r' | 'b' | 'c' if starts_literal(&chars, at) => at = end_of_prefixed(&chars, at),
            '\'' if next == '\\' || chars.get(at + 2) == Some(&'\'') => {
                // An escape has no quote but its own, right behind the backslash.
                let rest = if next == '\\' { at + 3 } else { at + 2 };
                at = rest + chars[rest..].iter().take_while(|c| **c != '\'').count() + 1;
            }
            ':' if next == ':' => {
                tokens.push(Token::Separator);
                at += 2;
            }
            c if is_word(c) => {
                let word: String = chars[at..].iter().copied().take_while(|c| is_word(*c)).collect();
                at += word.chars().count();
                tokens.push(Token::Word(word));
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push(Token::Sign(c));
                }
                at += 1;
            }
        }
    }
    tokens
}

fn end_of_comment(chars: &[char], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn end_of_string(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// Returns whether the letters at `at` are the prefix of a raw, byte or C string.
fn starts_literal(chars: &[char], at: usize) -> bool {
    let is_inside_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    let rest: String = chars[at..].iter().take(8).collect();
    let body = rest.trim_start_matches(['r', 'b', 'c']);
    !is_inside_word && rest.len() - body.len() <= 2 && body.trim_start_matches('#').starts_with('"')
}

fn end_of_prefixed(chars: &[char], start: usize) -> usize {
    let quote = start + chars[start..].iter().take_while(|c| **c != '"').count();
    if !chars[start..quote].contains(&'r') {
        return end_of_string(chars, quote);
    }
    let hashes = chars[start..quote].iter().filter(|c| **c == '#').count();
    let mut end = quote + 1;
    while end < chars.len() {
        if chars[end] == '"' && chars[end + 1..].iter().take_while(|c| **c == '#').count() >= hashes {
            return end + 1 + hashes;
        }
        end += 1;
    }
    end
}

//! Splitting of phonemes into pieces, and their conversion to the numbers that a network knows.

use std::collections::HashMap;

/// A map of phonemes to the numbers that the network was trained with.
pub(super) struct Numbering {
    begin: Vec<i32>,
    end: Vec<i32>,
    pad: Vec<i32>,
    phonemes: HashMap<char, Vec<i32>>,
}

impl Numbering {
    pub(super) fn new(map: &HashMap<String, Vec<i32>>) -> Result<Numbering, String> {
        let sign =
            |sign: &str| map.get(sign).cloned().ok_or_else(|| format!("phoneme_id_map lacks '{sign}'"));
        let (begin, end, pad) = (sign("^")?, sign("$")?, sign("_")?);
        let phonemes = map
            .iter()
            .filter(|(key, _)| !matches!(key.as_str(), "^" | "$" | "_"))
            .filter_map(|(key, ids)| {
                let mut characters = key.chars();
                Some((characters.next()?, ids.clone())).filter(|_| characters.next().is_none())
            })
            .collect();
        Ok(Numbering { begin, end, pad, phonemes })
    }

    /// Returns the IDs of one utterance: begin, a pad, each phoneme followed by a pad, end, as
    /// piper-phonemize numbers them for training (Piper's Python runtime leaves out the first pad). A
    /// phoneme that the voice was not trained with is left out too. Returns `None` if none is left.
    pub(super) fn ids(&self, phonemes: &str) -> Option<Vec<i32>> {
        let mut ids = [&self.begin[..], &self.pad].concat();
        let empty = ids.len();
        for phoneme in phonemes.chars().filter_map(|phoneme| self.phonemes.get(&phoneme)) {
            ids.extend_from_slice(phoneme);
            ids.extend_from_slice(&self.pad);
        }
        let spoken = ids.len() > empty;
        ids.extend_from_slice(&self.end);
        spoken.then_some(ids)
    }
}

/// Returns `phonemes` in pieces of at most `at_once` signs, cut between words if there are any.
pub(super) fn pieces(phonemes: &str, at_once: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = phonemes;
    while let Some((bound, _)) = rest.char_indices().nth(at_once) {
        let cut = rest[..bound].rfind(' ').filter(|&space| space > 0).unwrap_or(bound);
        let (piece, after) = rest.split_at(cut);
        pieces.push(piece);
        rest = after.trim_start();
    }
    if !rest.is_empty() {
        pieces.push(rest);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_phonemes_are_cut_between_words() {
        assert_eq!(pieces("", 5), Vec::<&str>::new());
        assert_eq!(pieces("ˈaː, b", 6), ["ˈaː, b"]);
        assert_eq!(pieces("ˈaː, bəd", 6), ["ˈaː,", "bəd"]);
        assert_eq!(pieces("əəəəəəəəəəə əə", 5), ["əəəəə", "əəəəə", "ə əə"]);
    }

    #[test]
    fn each_phoneme_has_a_pad_behind_it_and_strangers_are_left_out() {
        let map = [("^", 1), ("$", 2), ("_", 0), ("a", 14), (".", 10)];
        let map = map.into_iter().map(|(sign, id)| (sign.to_owned(), vec![id])).collect();
        let numbering = Numbering::new(&map).unwrap();
        assert_eq!(numbering.ids("aӜ."), Some(vec![1, 0, 14, 0, 10, 0, 2]));
        assert_eq!(numbering.ids("Ӝ"), None);
        assert_eq!(numbering.ids(""), None);
    }
}

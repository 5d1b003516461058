//! Numbers, dates and abbreviations as they are read aloud.

pub(super) mod russian;
/// `text` as a voice of `language` is to read it.
pub(super) fn spelt_out(language: &str, text: &str) -> String {
    match language {
        "ru" => russian::spelt_out(text),
        _ => text.to_owned(),
    }
}

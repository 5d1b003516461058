//! The voices of OpenAI, by the voices that stand in for them.

use std::sync::Arc;

use crate::options::VoiceAlias;
use crate::speech::speakers::Speaker;
use voxline::engine::{Voice, VoiceError, Voices};

/// Names of OpenAI's voices, and the speaker that stands in for each.
pub(super) const VOICES: [(&str, Speaker); 13] = [
    ("alloy", Speaker::Female),
    ("ash", Speaker::Male),
    ("ballad", Speaker::Male),
    ("coral", Speaker::Female),
    ("echo", Speaker::Male),
    ("fable", Speaker::Male),
    ("onyx", Speaker::Male),
    ("nova", Speaker::Female),
    ("sage", Speaker::Female),
    ("shimmer", Speaker::Female),
    ("verse", Speaker::Male),
    ("marin", Speaker::Female),
    ("cedar", Speaker::Male),
];

/// Returns the voice of that name for a text in `language`. A name of the operator's `aliases` stands for the
/// voice that it gives, a name of OpenAI's for a woman or a man who speaks the language, and any other name
/// for itself.
///
/// # Errors
/// Returns the errors of [`Voices::find`].
pub(super) fn find(
    voices: &Voices,
    aliases: &[VoiceAlias],
    name: &str,
    language: &str,
) -> Result<Arc<dyn Voice>, VoiceError> {
    if let Some(alias) = aliases.iter().find(|alias| alias.name == name) {
        return voices.find(Some(&alias.voice), Some(language));
    }
    match VOICES.iter().find(|(known, _)| *known == name) {
        Some((_, speaker)) => speaker.find(voices, language),
        None => voices.find(Some(name), Some(language)),
    }
}

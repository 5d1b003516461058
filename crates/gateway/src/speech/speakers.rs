//! Speakers that stand in for voices of other services.

use std::sync::Arc;

use voxline::engine::{Voice, VoiceError, Voices};

/// Women and men among Piper's Russian and English voices and festival's, best first.
const WOMEN: &[&str] = &["irina", "lessac", "amy", "kristin"];
const MEN: &[&str] = &["dmitri", "denis", "ruslan", "festival-ru", "ryan", "joe"];

/// A speaker whose language is that of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaker {
    Female,
    Male,
}

impl Speaker {
    /// Returns the best voice of such a speaker for a text in `language`, or the best voice of the language
    /// if there is no such speaker.
    ///
    /// # Errors
    /// Returns the errors of [`Voices::find`].
    pub(crate) fn find(self, voices: &Voices, language: &str) -> Result<Arc<dyn Voice>, VoiceError> {
        let names = match self {
            Speaker::Female => WOMEN,
            Speaker::Male => MEN,
        };
        let speaks = |name: &&str| {
            voices.iter().find(|voice| voice.info().name == *name && voice.info().language == language)
        };
        let found = names.iter().find_map(speaks).cloned();
        found.map_or_else(|| voices.find(None, Some(language)), Ok)
    }
}

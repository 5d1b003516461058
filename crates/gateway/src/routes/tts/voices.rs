//! The voices of Cloud Voice, by the voices that stand in for them.

use std::sync::Arc;

use crate::speech::speakers::Speaker;
use voxline::engine::{Voice, VoiceError, Voices};

/// Names of Cloud Voice's voices, which its clients send, and the speaker that stands in for each.
const CLOUD_VOICES: &[([&str; 2], Speaker)] = &[
    (["katherine", "katherine-hifigan"], Speaker::Female),
    (["maria", "maria-serious"], Speaker::Female),
    (["pavel", "pavel-hifigan"], Speaker::Male),
];

/// Returns the voice of that name for a text in that language. The names of Cloud Voice's voices stand for a
/// woman (`katherine`, `maria` and their variants) or a man (`pavel`) who speaks the language, or for the
/// best voice of the language if there is no such speaker. An English text is therefore spoken in English,
/// although the service's own voices know only Russian.
///
/// # Errors
/// Returns the errors of [`Voices::find`].
pub(super) fn find(voices: &Voices, name: &str, language: &str) -> Result<Arc<dyn Voice>, VoiceError> {
    match CLOUD_VOICES.iter().find(|(names, _)| names.contains(&name)) {
        Some((_, speaker)) => speaker.find(voices, language),
        None => voices.find(Some(name), Some(language)),
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use voxline::engine::{EngineError, Quality, VoiceInfo};

    use super::*;

    /// A voice that has nothing but a name.
    struct Named(VoiceInfo);

    impl Voice for Named {
        fn info(&self) -> &VoiceInfo {
            &self.0
        }

        fn speak_in_pieces(
            &self,
            _: &str,
            _: f32,
            _: &mut dyn FnMut(&[i16]) -> ControlFlow<()>,
        ) -> Result<(), EngineError> {
            Ok(())
        }
    }

    fn at_hand(voices: &[(&str, &str)]) -> Voices {
        let named = |(name, language): &(&str, &str)| -> Arc<dyn Voice> {
            Arc::new(Named(VoiceInfo {
                name: (*name).to_owned(),
                language: (*language).to_owned(),
                sample_rate: 24_000,
                quality: Quality::Natural,
                license: "none".to_owned(),
                speakers: Vec::new(),
            }))
        };
        Voices::new(voices.iter().map(named).collect())
    }

    fn name(voices: &Voices, cloud: &str, language: &str) -> String {
        find(voices, cloud, language).unwrap().info().name.clone()
    }

    #[test]
    fn a_name_of_the_services_is_spoken_for_by_a_woman_or_a_man_where_there_is_one() {
        let voices =
            at_hand(&[("denis", "ru"), ("irina", "ru"), ("amy", "en"), ("ryan", "en"), ("lessac", "ru")]);
        for (cloud, russian, english) in [
            ("katherine", "irina", "amy"),
            ("katherine-hifigan", "irina", "amy"),
            ("maria", "irina", "amy"),
            ("maria-serious", "irina", "amy"),
            ("pavel", "denis", "ryan"),
            ("pavel-hifigan", "denis", "ryan"),
        ] {
            assert_eq!(
                [name(&voices, cloud, "ru"), name(&voices, cloud, "en")],
                [russian, english],
                "{cloud}"
            );
        }
    }

    #[test]
    fn a_name_of_the_services_is_the_best_voice_of_the_language_where_there_is_no_such_speaker() {
        let voices = at_hand(&[("first", "ru"), ("second", "ru"), ("third", "en")]);
        for cloud in ["katherine", "katherine-hifigan", "maria", "maria-serious", "pavel", "pavel-hifigan"] {
            assert_eq!(name(&voices, cloud, "ru"), "first");
            // An English text is better understood from an English voice than in the language of the
            // service's voice.
            assert_eq!(name(&voices, cloud, "en"), "third");
        }
        assert_eq!(name(&voices, "second", "en"), "second");
        assert!(matches!(find(&voices, "nobody", "en"), Err(VoiceError::Unknown { .. })));
    }
}

//! The voices at hand, and which of them speaks.

use std::sync::Arc;

use super::{Quality, Voice, VoiceInfo};

/// Women and men among Piper's Russian and English voices, and festival's, the best first.
const WOMEN: &[&str] = &["irina", "lessac", "amy", "kristin"];
const MEN: &[&str] = &["dmitri", "denis", "ruslan", "festival-ru", "ryan", "joe"];
/// Names of Cloud Voice's voices, which its clients send, and who speaks for each.
const CLOUD_VOICES: &[([&str; 2], &[&str])] = &[
    (["katherine", "katherine-hifigan"], WOMEN),
    (["maria", "maria-serious"], WOMEN),
    (["pavel", "pavel-hifigan"], MEN),
];

/// The voice that speaks English. Where its model is missing, that is told with the command that brings it: espeak-ng
/// takes its place only when asked to.
const ENGLISH: &str = "joe";

/// Why there is no voice to speak with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VoiceError {
    /// Nobody knows a voice of that name.
    #[error("voice {name:?} is unknown; at hand: {at_hand}{}", suggest(.absent))]
    Unknown {
        /// The name asked for, cut to a printable length.
        name: String,
        /// The voices at hand.
        at_hand: String,
        /// What would bring more, empty if nothing is missing.
        absent: String,
    },
    /// The voice is known, but none of its speakers has that name.
    #[error("voice {name:?} has no speaker {speaker:?}; {}", .at_hand)]
    Speaker {
        /// The voice.
        name: String,
        /// The speaker asked for, cut to a printable length.
        speaker: String,
        /// Who speaks.
        at_hand: String,
    },
    /// The voice is known, but what it is made of is not on this machine.
    #[error("voice {name:?} is not on this machine; run: {bring}")]
    Absent {
        /// The voice.
        name: String,
        /// The command that brings it.
        bring: String,
    },
    /// No voice at hand speaks the language.
    #[error("no voice at hand speaks {language:?}; at hand: {at_hand}{}", suggest(.absent))]
    Language {
        /// The language asked for, cut to a printable length.
        language: String,
        /// The voices at hand.
        at_hand: String,
        /// What would bring more, empty if nothing is missing.
        absent: String,
    },
}

/// The voices of this machine.
#[derive(Default)]
pub struct Voices {
    /// The best of each language first.
    voices: Vec<Arc<dyn Voice>>,
    absent: Vec<Absent>,
}

/// A voice that could be here.
struct Absent {
    name: &'static str,
    language: &'static str,
    bring: String,
}

impl Voices {
    /// A set of given voices, the best of each language first; for other voices than voxline's own.
    #[must_use]
    pub fn new(voices: Vec<Arc<dyn Voice>>) -> Voices {
        Voices { voices, absent: Vec::new() }
    }

    /// Adds a voice, behind those of its language that are better.
    pub fn push(&mut self, voice: Arc<dyn Voice>) {
        self.voices.push(voice);
    }

    /// Notes a voice that is not on this machine, and the command that brings it, for error messages.
    pub fn lacks(&mut self, name: &'static str, language: &'static str, bring: String) {
        self.absent.push(Absent { name, language, bring });
    }

    /// The voices, the best of each language first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Voice>> {
        self.voices.iter()
    }

    /// What there is to know about each voice, in the same order.
    #[must_use]
    pub fn list(&self) -> Vec<VoiceInfo> {
        self.iter().map(|voice| voice.info().clone()).collect()
    }

    /// The voice of that name; without a name, the best of that language (a region as in `ru-RU` is ignored);
    /// without either, the best English one. For a text of unknown language see [`language_of`].
    ///
    /// Cloud Voice's names mean a woman (`katherine`, `maria` and their variants) or a man (`pavel`) who speaks that
    /// language, Russian where none is given, or who else speaks it best: an English text is spoken in English, though
    /// the service's own voices know Russian only.
    ///
    /// # Errors
    /// [`VoiceError`], which lists what is at hand and says what would bring the rest.
    pub fn find(&self, name: Option<&str>, language: Option<&str>) -> Result<Arc<dyn Voice>, VoiceError> {
        match name {
            Some(name) => match CLOUD_VOICES.iter().find(|(names, _)| names.contains(&name)) {
                Some((_, speakers)) => self.one_of(speakers, language.unwrap_or("ru")),
                None => self.named(name),
            },
            None => self.best(language.unwrap_or("en")),
        }
    }

    fn named(&self, name: &str) -> Result<Arc<dyn Voice>, VoiceError> {
        if let Some(voice) = self.iter().find(|voice| voice.info().name == name) {
            return Ok(Arc::clone(voice));
        }
        if let Some((voice, speaker)) = self.of_several(name) {
            return voice.speaker(speaker).ok_or_else(|| VoiceError::Speaker {
                name: voice.info().name.clone(),
                speaker: printable(speaker),
                at_hand: speakers(voice.info()),
            });
        }
        Err(match self.absent.iter().find(|absent| absent.name == name) {
            Some(absent) => VoiceError::Absent { name: name.to_owned(), bring: absent.bring.clone() },
            None => VoiceError::Unknown {
                name: printable(name),
                at_hand: self.at_hand(),
                absent: self.commands(|_| true),
            },
        })
    }

    /// The voice and the speaker that `NAME:SPEAKER` names.
    fn of_several<'a>(&self, name: &'a str) -> Option<(&Arc<dyn Voice>, &'a str)> {
        let (name, speaker) = name.split_once(':')?;
        Some((self.iter().find(|voice| voice.info().name == name)?, speaker))
    }

    /// The first of these who is at hand and speaks the language; else the best of it.
    fn one_of(&self, speakers: &[&str], language: &str) -> Result<Arc<dyn Voice>, VoiceError> {
        let speaks = |name: &&str| {
            self.iter().find(|voice| voice.info().name == *name && voice.info().language == language)
        };
        speakers.iter().find_map(speaks).cloned().map_or_else(|| self.best(language), Ok)
    }

    fn best(&self, language: &str) -> Result<Arc<dyn Voice>, VoiceError> {
        let spoken = language.split(['-', '_']).next().unwrap_or(language);
        let voice = self.iter().find(|voice| voice.info().language.eq_ignore_ascii_case(spoken));
        let natural = voice.is_some_and(|voice| voice.info().quality == Quality::Natural);
        if let Some(absent) = self.absent.iter().find(|absent| absent.name == ENGLISH)
            && absent.language.eq_ignore_ascii_case(spoken)
            && !natural
        {
            return Err(VoiceError::Absent { name: absent.name.to_owned(), bring: absent.bring.clone() });
        }
        voice.cloned().ok_or_else(|| VoiceError::Language {
            language: printable(language),
            at_hand: self.at_hand(),
            absent: self.commands(|absent| absent.language.eq_ignore_ascii_case(spoken)),
        })
    }

    fn at_hand(&self) -> String {
        let names: Vec<&str> = self.iter().map(|voice| voice.info().name.as_str()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    fn commands(&self, wanted: impl Fn(&Absent) -> bool) -> String {
        let commands: Vec<String> = self
            .absent
            .iter()
            .filter(|absent| wanted(absent))
            .map(|absent| format!("{} ({})", absent.bring, absent.name))
            .collect();
        commands.join("; ")
    }
}

impl std::fmt::Debug for Voices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter().map(|voice| &voice.info().name)).finish()
    }
}

/// The language a text is most likely in, by its script: `ru` if most letters are Cyrillic, else `en`.
#[must_use]
pub fn language_of(text: &str) -> &'static str {
    let (mut cyrillic, mut others) = (0usize, 0usize);
    for letter in text.chars().filter(|c| c.is_alphabetic()) {
        // Unicode block Cyrillic.
        if ('\u{400}'..='\u{4ff}').contains(&letter) { cyrillic += 1 } else { others += 1 }
    }
    if cyrillic > others { "ru" } else { "en" }
}

/// Who speaks, for an error message. Some voices have hundreds of speakers.
fn speakers(info: &VoiceInfo) -> String {
    match info.speakers.as_slice() {
        [] => "it has but one".to_owned(),
        all if all.len() <= 10 => format!("it has {}", all.join(", ")),
        all => format!("it has {} and {} more", all[..10].join(", "), all.len() - 10),
    }
}

/// The end of an error message that says what would help.
fn suggest(absent: &str) -> String {
    if absent.is_empty() { String::new() } else { format!("; for more run: {absent}") }
}

/// A name from outside, short enough for an error message.
fn printable(name: &str) -> String {
    name.chars().take(40).collect()
}

//! Collection of voices, and the choice of a voice for a request.

use std::sync::Arc;

use super::{Quality, Voice, VoiceInfo};

/// Default English voice. If its model is missing, the error names the command that fetches it: espeak-ng
/// replaces this voice only on request.
const ENGLISH: &str = "joe";

/// Error choosing a voice. The message names the voices at hand, and the command that fetches others.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VoiceError {
    /// No voice of that name is known.
    #[error("voice {name:?} is unknown; available: {available}{}", suggest(.absent))]
    Unknown {
        /// Requested name, cut to a printable length.
        name: String,
        /// Available voices.
        available: String,
        /// Commands that would fetch more voices; empty if none is missing.
        absent: String,
    },
    /// The voice is known, but has no speaker of that name.
    #[error("voice {name:?} has no speaker {speaker:?}; {}", .available)]
    Speaker {
        /// Name of the voice.
        name: String,
        /// Requested speaker, cut to a printable length.
        speaker: String,
        /// Available speakers.
        available: String,
    },
    /// The voice is known, but its data are not on this machine.
    #[error("voice {name:?} is not on this machine; run: {command}")]
    Absent {
        /// Name of the voice.
        name: String,
        /// Command that fetches the data.
        command: String,
    },
    /// No available voice speaks the language.
    #[error("no available voice speaks {language:?}; available: {available}{}", suggest(.absent))]
    Language {
        /// Requested language, cut to a printable length.
        language: String,
        /// Available voices.
        available: String,
        /// Commands that would fetch more voices; empty if none is missing.
        absent: String,
    },
}

/// The voices available on this machine.
#[derive(Default)]
pub struct Voices {
    /// Voices, the best of each language first.
    voices: Vec<Arc<dyn Voice>>,
    absent: Vec<Absent>,
}

/// A known voice that is not on this machine.
struct Absent {
    name: &'static str,
    language: &'static str,
    command: String,
}

impl Voices {
    /// Creates a collection of the given voices, the best of each language first. For voices other than
    /// voxline's own.
    #[must_use]
    pub fn new(voices: Vec<Arc<dyn Voice>>) -> Voices {
        Voices { voices, absent: Vec::new() }
    }

    /// Adds a voice, ranked behind the voices of its language that are already there.
    pub fn push(&mut self, voice: Arc<dyn Voice>) {
        self.voices.push(voice);
    }

    /// Adds a voice that is not on this machine, and the command that fetches it, for error messages.
    pub fn add_unavailable(&mut self, name: &'static str, language: &'static str, command: String) {
        self.absent.push(Absent { name, language, command });
    }

    /// Returns the voices, the best of each language first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Voice>> {
        self.voices.iter()
    }

    /// Returns the properties of each voice, in the same order.
    #[must_use]
    pub fn list(&self) -> Vec<VoiceInfo> {
        self.iter().map(|voice| voice.info().clone()).collect()
    }

    /// Returns the voice of that name; without a name, the best voice of that language (a region as in
    /// `ru-RU` is ignored); without either, the best English voice. For a text of unknown language see
    /// [`language_of`].
    ///
    /// # Errors
    /// Returns [`VoiceError`] if there is no such voice. The error lists the available voices and the
    /// commands that fetch others.
    pub fn find(&self, name: Option<&str>, language: Option<&str>) -> Result<Arc<dyn Voice>, VoiceError> {
        match name {
            Some(name) => self.named(name),
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
                available: speakers(voice.info()),
            });
        }
        Err(match self.absent.iter().find(|absent| absent.name == name) {
            Some(absent) => VoiceError::Absent { name: name.to_owned(), command: absent.command.clone() },
            None => VoiceError::Unknown {
                name: printable(name),
                available: self.available(),
                absent: self.commands(|_| true),
            },
        })
    }

    /// Returns the voice and the speaker that `NAME:SPEAKER` stands for.
    fn of_several<'a>(&self, name: &'a str) -> Option<(&Arc<dyn Voice>, &'a str)> {
        let (name, speaker) = name.split_once(':')?;
        Some((self.iter().find(|voice| voice.info().name == name)?, speaker))
    }

    fn best(&self, language: &str) -> Result<Arc<dyn Voice>, VoiceError> {
        let spoken = language.split(['-', '_']).next().unwrap_or(language);
        let voice = self.iter().find(|voice| voice.info().language.eq_ignore_ascii_case(spoken));
        let natural = voice.is_some_and(|voice| voice.info().quality == Quality::Natural);
        if let Some(absent) = self.absent.iter().find(|absent| absent.name == ENGLISH)
            && absent.language.eq_ignore_ascii_case(spoken)
            && !natural
        {
            return Err(VoiceError::Absent { name: absent.name.to_owned(), command: absent.command.clone() });
        }
        voice.cloned().ok_or_else(|| VoiceError::Language {
            language: printable(language),
            available: self.available(),
            absent: self.commands(|absent| absent.language.eq_ignore_ascii_case(spoken)),
        })
    }

    fn available(&self) -> String {
        let names: Vec<&str> = self.iter().map(|voice| voice.info().name.as_str()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    fn commands(&self, wanted: impl Fn(&Absent) -> bool) -> String {
        let commands: Vec<String> = self
            .absent
            .iter()
            .filter(|absent| wanted(absent))
            .map(|absent| format!("{} ({})", absent.command, absent.name))
            .collect();
        commands.join("; ")
    }
}

impl std::fmt::Debug for Voices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter().map(|voice| &voice.info().name)).finish()
    }
}

/// Returns the most likely language of a text, by its script: `ru` if most letters are Cyrillic,
/// otherwise `en`.
#[must_use]
pub fn language_of(text: &str) -> &'static str {
    let (mut cyrillic, mut others) = (0usize, 0usize);
    for letter in text.chars().filter(|c| c.is_alphabetic()) {
        // Unicode block Cyrillic.
        if ('\u{400}'..='\u{4ff}').contains(&letter) { cyrillic += 1 } else { others += 1 }
    }
    if cyrillic > others { "ru" } else { "en" }
}

/// Lists the speakers for an error message. Some voices have hundreds of speakers.
fn speakers(info: &VoiceInfo) -> String {
    match info.speakers.as_slice() {
        [] => "it has but one".to_owned(),
        all if all.len() <= 10 => format!("it has {}", all.join(", ")),
        all => format!("it has {} and {} more", all[..10].join(", "), all.len() - 10),
    }
}

/// Returns the end of an error message, which suggests a remedy.
fn suggest(absent: &str) -> String {
    if absent.is_empty() { String::new() } else { format!("; for more run: {absent}") }
}

/// Shortens a name from outside for an error message.
fn printable(name: &str) -> String {
    name.chars().take(40).collect()
}

//! Recognisers and voices, behind two traits.
//!
//! The gateway knows only [`Recognizer`] and [`Voice`]. A recogniser is shared by all sessions; each session holds a
//! [`RecognizerStream`] of its own. Both are synchronous and CPU-bound: their caller runs them on a thread where
//! blocking is allowed.

mod voices;

use std::fmt;
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use crate::audio::FrameRange;
use crate::language::{Language, Languages};
use crate::transcript::Word;

pub use self::voices::{VoiceError, Voices, language_of};

/// The sample rate every engine hears, in Hz. Speech models are trained at it; callers resample.
pub const RECOGNIZER_RATE: u32 = 16_000;

/// What an engine could not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A model or voice file is missing, damaged or of another shape than expected. `hint` tells the operator what
    /// to do, for example which command fetches the file.
    #[error("model {path}: {reason}; {hint}")]
    Model {
        /// The file or directory.
        path: String,
        /// What is wrong with it.
        reason: String,
        /// What to do about it.
        hint: String,
    },
    /// The language asked for is not one the engine knows.
    #[error("language '{0}' is not one of this engine's")]
    Language(String),
    /// A program the engine depends on (espeak-ng, festival) is not installed or failed.
    #[error("program {program}: {reason}")]
    Program {
        /// The program's name.
        program: String,
        /// What went wrong, and which package brings it if it is missing.
        reason: String,
    },
    /// The computation itself failed.
    #[error("{engine}: {reason}")]
    Inference {
        /// The engine's name.
        engine: &'static str,
        /// What failed.
        reason: String,
    },
}

/// A text and the range of the stream it was heard in.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// Where it was heard, in frames at [`RECOGNIZER_RATE`] from the stream's start.
    pub range: FrameRange,
    /// What was said; empty where nothing was.
    pub text: String,
    /// The language it was recognised in, as a BCP 47 code (`en`, `ru`), where the engine knows.
    pub language: Option<String>,
    /// How sure the engine is of the text, 0 to 1, where it knows.
    pub confidence: Option<f32>,
    /// The words of the text in order, where the engine tells them apart; none of a guess.
    pub words: Vec<Word>,
    /// Whatever the text behind this segment depends on besides its audio, such as the language settled on: a
    /// stream that starts with it at the segment's end gives the text that this one will. It may be any text
    /// of at most 4 KiB; where there is none, that of the segment before stays in force. None of a guess.
    pub context: Option<String>,
}

impl Segment {
    /// Where nothing was said.
    #[must_use]
    pub fn silence(range: FrameRange) -> Segment {
        Segment {
            range,
            text: String::new(),
            language: None,
            confidence: None,
            words: Vec::new(),
            context: None,
        }
    }
}

/// What became of a guess.
#[derive(Clone, Debug, PartialEq)]
pub enum Guess {
    /// There is nothing to guess: no speech is open, or too little new audio came since the last guess.
    Nothing,
    /// There is more to be done for it: another call carries on, and so may the next audio, if that says that the guess
    /// comes to nothing.
    Unfinished,
    /// What the open utterance says as far as it goes.
    Text(Segment),
}

/// What a session asks of its recogniser.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamOptions {
    /// The language spoken, as a BCP 47 code (`en`, `ru`; a region as in `ru-RU` is ignored); `None` has it
    /// detected.
    pub language: Option<String>,
    /// The languages of which one is detected; any where there are none.
    pub languages: Vec<String>,
    /// The [context](Segment::context) of the last segment before the stream, of this or another process,
    /// perhaps of an earlier version: an engine that can't read it starts as without one.
    pub context: Option<String>,
}

impl From<&Languages> for StreamOptions {
    fn from(languages: &Languages) -> StreamOptions {
        let language = languages.only().map(Language::to_string);
        let languages =
            if language.is_some() { Vec::new() } else { languages.iter().map(Language::to_string).collect() };
        StreamOptions { language, languages, context: None }
    }
}

/// A speech recogniser: loaded once, shared by all sessions. `examples/recognizer.rs` brings one of its own, small and
/// whole, and has a gateway serve it.
pub trait Recognizer: Send + Sync {
    /// Its name, as users see it in lists and logs.
    fn name(&self) -> &str;

    /// Begins a stream.
    ///
    /// # Errors
    /// [`EngineError::Language`] for a language the engine doesn't know.
    fn start(&self, options: &StreamOptions) -> Result<Box<dyn RecognizerStream>, EngineError>;

    /// The most audio that a stream leaves without a segment while it waits for more, in frames at
    /// [`RECOGNIZER_RATE`]: a client must be able to keep so much. `None` where an engine can't tell.
    fn longest_pending(&self) -> Option<u64> {
        None
    }

    /// How many seconds one thread takes for a second of speech, guesses apart: measured here and now, which may itself take
    /// some seconds. From this a gateway tells how many speakers the machine carries. `None` where an engine can't tell.
    fn real_time_factor(&self) -> Option<f64> {
        None
    }
}

/// One session's recognition.
///
/// Committed segments are contiguous: each starts where the one before ended, the first at zero. Where nothing was
/// said, a segment has an empty text. The same samples give the same segments however they are split into pushes.
pub trait RecognizerStream: Send {
    /// Takes the next samples (mono, 16-bit, [`RECOGNIZER_RATE`]) and returns the segments they completed. An
    /// utterance has a maximal length, so the end of the last segment always advances.
    ///
    /// # Errors
    /// When the computation fails; the stream is then of no further use.
    fn push(&mut self, pcm: &[i16]) -> Result<Vec<Segment>, EngineError>;

    /// Works on a guess at the open utterance as far as it goes, which the next segments replace. All calls of one guess
    /// together may be as costly as a final result, so callers leave them out when they are behind; one call takes some
    /// ten milliseconds, so nothing waits for it.
    ///
    /// # Errors
    /// As [`push`](RecognizerStream::push).
    fn partial(&mut self) -> Result<Guess, EngineError>;

    /// Ends the open utterance here and returns the segments that cover everything pushed so far. More audio may
    /// follow.
    ///
    /// # Errors
    /// As [`push`](RecognizerStream::push).
    fn flush(&mut self) -> Result<Vec<Segment>, EngineError>;
}

/// What users should know about a voice before they choose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoiceInfo {
    /// Its name, as `--voice` and `model_name` take it.
    pub name: String,
    /// The language it speaks, as a BCP 47 code.
    pub language: String,
    /// The sample rate of its PCM, in Hz.
    pub sample_rate: u32,
    /// Whether it is natural or merely intelligible.
    pub quality: Quality,
    /// The licence of the voice's data, as its authors state it.
    pub license: String,
    /// The names of those who speak, where there are several: `NAME:SPEAKER` is a voice, too. The first speaks where
    /// none is named.
    pub speakers: Vec<String>,
}

/// The tempos a voice speaks at; others are moved to the nearer end. Cloud Voice takes 0.75 to 1.75, its public demo
/// took 0.5 to 2.
pub const TEMPOS: RangeInclusive<f32> = 0.5..=2.0;

/// How a voice sounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// Close to a person.
    Natural,
    /// Clear but artificial.
    Clear,
    /// Hard to understand for a listener or a recogniser; a last resort.
    Low,
}

impl fmt::Display for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Quality::Natural => "natural",
            Quality::Clear => "clear",
            Quality::Low => "low quality",
        })
    }
}

/// A voice: loaded once, shared by all requests.
pub trait Voice: Send + Sync {
    /// What it is.
    fn info(&self) -> &VoiceInfo;

    /// Speaks one sentence: mono PCM, 16-bit, at `info().sample_rate`. `take` gets it piece by piece, each as soon as it
    /// is made, and may break off; a voice that can't do better gives all in one. `tempo` is the speed, 1.0 as the voice
    /// was made, 2.0 twice as fast, within [`TEMPOS`]. A text without anything to pronounce gives no samples. On one
    /// machine the same sentence and tempo give the same samples, so who has heard half can ask again for the rest.
    ///
    /// # Errors
    /// [`EngineError::Program`] or [`EngineError::Inference`]; the voice stays usable.
    fn speak_in_pieces(
        &self,
        sentence: &str,
        tempo: f32,
        take: &mut dyn FnMut(&[i16]) -> ControlFlow<()>,
    ) -> Result<(), EngineError>;

    /// As [`speak_in_pieces`](Voice::speak_in_pieces), for who wants all of it.
    ///
    /// # Errors
    /// As [`speak_in_pieces`](Voice::speak_in_pieces).
    fn speak(&self, sentence: &str, tempo: f32) -> Result<Vec<i16>, EngineError> {
        let mut pcm = Vec::new();
        self.speak_in_pieces(sentence, tempo, &mut |piece| {
            pcm.extend_from_slice(piece);
            ControlFlow::Continue(())
        })?;
        Ok(pcm)
    }

    /// The voice of one of [`VoiceInfo::speakers`].
    fn speaker(&self, _name: &str) -> Option<Arc<dyn Voice>> {
        None
    }
}

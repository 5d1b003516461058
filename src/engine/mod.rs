//! Traits of recognisers and voices.
//!
//! The gateway knows only [`Recognizer`] and [`Voice`]. A recogniser is shared by all sessions, and each
//! session holds a [`RecognizerStream`] of its own. Both are synchronous and CPU-bound: callers run them
//! on a thread where blocking is allowed.

mod error;
mod request;
mod voices;

use std::fmt;
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use crate::audio::FrameRange;
use crate::transcript::Word;

pub use self::error::{EngineError, ModelFault, ProgramFault};
pub use self::request::{Accuracy, Capabilities, Latency, RecognitionRequest, Task, UnsupportedRequest};
pub use self::voices::{VoiceError, Voices, language_of};

/// Sample rate of the input of every engine, in Hz. Speech models are trained at this rate; callers
/// resample.
pub const RECOGNIZER_RATE: u32 = 16_000;

/// Recognised text of a range of the stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// Range of the audio, in frames at [`RECOGNIZER_RATE`] from the start of the stream.
    pub range: FrameRange,
    /// Recognised text; empty if nothing was said.
    pub text: String,
    /// Spoken language, as a BCP 47 code (`en`, `ru`), if the engine knows it. The text of a translation is
    /// in English, whatever was spoken.
    pub language: Option<String>,
    /// Confidence of the engine in the text, 0 to 1, if known.
    pub confidence: Option<f32>,
    /// Mean natural logarithm of the probabilities of the text's tokens, at most 0, if known: `avg_logprob`
    /// in OpenAI's `verbose_json`. Below -1, the text is doubtful. Absent from a partial result.
    pub avg_log_probability: Option<f32>,
    /// Length of the text in bytes of UTF-8, divided by that of the text as compressed by zlib, if known:
    /// `compression_ratio` in OpenAI's `verbose_json`. A short text has a ratio below 1; above 2.4, the
    /// text repeats itself. Absent from a partial result.
    pub compression_ratio: Option<f32>,
    /// Probability that the range holds no speech, 0 to 1, if known: `no_speech_prob` in OpenAI's
    /// `verbose_json`. An engine may know it for a range without text as well. Absent from a partial result.
    pub no_speech_probability: Option<f32>,
    /// Numbers of the text's tokens in the vocabulary of the model, if the engine has such: `tokens` in
    /// OpenAI's `verbose_json`. Empty in a partial result.
    pub tokens: Vec<u32>,
    /// Label of the speaker, if the engine distinguishes speakers: the same label in all segments in which
    /// the engine recognises the same speaker.
    pub speaker: Option<String>,
    /// Words of the text in order, if the engine reports them; empty in a partial result.
    pub words: Vec<Word>,
    /// State that the following text depends on besides its audio, such as the detected language. A
    /// stream that starts with this context at the segment's end yields the same text as this stream. The
    /// context may be any text of at most 4 KiB. If absent, the context of the segment before stays in
    /// force. Absent from a partial result.
    pub context: Option<String>,
}

impl Segment {
    /// Creates a segment in which nothing was said.
    #[must_use]
    pub fn silence(range: FrameRange) -> Segment {
        Segment {
            range,
            text: String::new(),
            language: None,
            confidence: None,
            avg_log_probability: None,
            compression_ratio: None,
            no_speech_probability: None,
            tokens: Vec::new(),
            speaker: None,
            words: Vec::new(),
            context: None,
        }
    }
}

/// Outcome of one step towards a partial result.
#[derive(Clone, Debug, PartialEq)]
pub enum PartialResult {
    /// There is no partial result: no speech is open, or too little new audio came since the last one.
    Nothing,
    /// The computation is not finished: another call continues it. More audio may be pushed first, and
    /// may make this partial result void.
    Unfinished,
    /// Partial result: the text of the open utterance so far.
    Text(Segment),
}

/// A speech recogniser, loaded once and shared by all sessions. `examples/recognizer.rs` implements a
/// small, complete one and serves it by a gateway.
pub trait Recognizer: Send + Sync {
    /// Returns the name shown to users in lists and logs.
    fn name(&self) -> &str;

    /// Returns what the recogniser honours of a request, and reports in a segment. By default, it
    /// transcribes, and honours nothing else.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    /// Starts a stream.
    ///
    /// # Errors
    /// Returns [`EngineError::Unsupported`] if the recogniser does not honour all of the request; see
    /// [`Capabilities::check`].
    fn start(&self, request: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError>;

    /// Returns the maximum amount of audio that the stream of a request leaves without a segment while it
    /// waits for more, in frames at [`RECOGNIZER_RATE`]. A client must be able to buffer as much. `None` if
    /// the engine cannot tell.
    fn longest_pending(&self, _request: &RecognitionRequest) -> Option<u64> {
        None
    }

    /// Returns the amount of audio that the stream of a request recognises together with the least effort, in
    /// frames at [`RECOGNIZER_RATE`]. A caller that has as much [`feed`](RecognizerStream::feed)s it before
    /// the [`work`](RecognizerStream::work) on it; nobody waits for more audio to come. By default `None`:
    /// the amount makes no difference.
    fn batch_frames(&self, _request: &RecognitionRequest) -> Option<u64> {
        None
    }

    /// Returns the seconds that one thread takes for a second of clear speech at the default accuracy,
    /// without partial results. The call measures it, which may take some seconds. A gateway derives from it
    /// the number of speakers that the machine can serve. Sessions that ask for [`Accuracy::Best`], and
    /// doubtful audio, take longer. `None` if the engine cannot tell.
    fn real_time_factor(&self) -> Option<f64> {
        None
    }
}

/// Recognition stream of one session.
///
/// Committed segments are contiguous: each starts at the end of the one before, and the first starts at
/// zero. Each covers at least one frame. A segment in which nothing was said has an empty text. The same
/// samples yield the same segments, however they are split into pushes.
pub trait RecognizerStream: Send {
    /// Takes the next samples (mono, 16-bit, [`RECOGNIZER_RATE`]) and returns the segments that they
    /// completed. Utterances have a maximum length, so the end of the last segment always advances.
    ///
    /// # Errors
    /// Returns [`EngineError`] if the computation fails; the stream is then unusable.
    fn push(&mut self, pcm: &[i16]) -> Result<Vec<Segment>, EngineError>;

    /// Takes the next samples as [`push`](RecognizerStream::push) does, and may leave the work to
    /// [`work`](RecognizerStream::work). By default it leaves nothing.
    ///
    /// # Errors
    /// Returns [`EngineError`] in the same cases as [`push`](RecognizerStream::push).
    fn feed(&mut self, pcm: &[i16]) -> Result<Vec<Segment>, EngineError> {
        self.push(pcm)
    }

    /// Ends the open utterance as [`flush`](RecognizerStream::flush) does, and may leave the work to
    /// [`work`](RecognizerStream::work). By default it leaves nothing.
    ///
    /// # Errors
    /// Returns [`EngineError`] in the same cases as [`push`](RecognizerStream::push).
    fn begin_flush(&mut self) -> Result<Vec<Segment>, EngineError> {
        self.flush()
    }

    /// Does some of the work that [`feed`](RecognizerStream::feed) or
    /// [`begin_flush`](RecognizerStream::begin_flush) left, and returns the segments that it completed.
    /// `None` means that nothing is left. Once the work has begun, no other method may be called before. A
    /// recogniser that tells [`batch_frames`](Recognizer::batch_frames) takes several calls of `feed`, and
    /// then `begin_flush`, before the work on them. One call takes some ten milliseconds, so that other work
    /// comes in between, and the stream can be dropped soon.
    ///
    /// # Errors
    /// Returns [`EngineError`] in the same cases as [`push`](RecognizerStream::push).
    fn work(&mut self) -> Result<Option<Vec<Segment>>, EngineError> {
        Ok(None)
    }

    /// Returns the number of threads that the next call of [`work_on`](RecognizerStream::work_on) can use at
    /// once. By default it is one.
    fn max_threads(&self) -> usize {
        1
    }

    /// Does some of the work as [`work`](RecognizerStream::work) does, on at most `threads` threads at once.
    /// The segments do not depend on their number. By default it uses one.
    ///
    /// # Errors
    /// Returns [`EngineError`] in the same cases as [`push`](RecognizerStream::push).
    fn work_on(&mut self, _threads: usize) -> Result<Option<Vec<Segment>>, EngineError> {
        self.work()
    }

    /// Continues the computation of a partial result of the open utterance, which the next segments
    /// replace. All calls for one partial result together may cost as much as a final result, so callers
    /// that are behind skip them. One call takes some ten milliseconds, so that nothing waits for it.
    ///
    /// # Errors
    /// Returns [`EngineError`] in the same cases as [`push`](RecognizerStream::push).
    fn partial(&mut self) -> Result<PartialResult, EngineError>;

    /// Ends the open utterance here and returns the segments that cover all audio pushed so far. More
    /// audio may follow.
    ///
    /// # Errors
    /// Returns [`EngineError`] in the same cases as [`push`](RecognizerStream::push).
    fn flush(&mut self) -> Result<Vec<Segment>, EngineError>;
}

/// Properties of a voice, by which users choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoiceInfo {
    /// Name, as `--voice` and `model_name` take it.
    pub name: String,
    /// Language that the voice speaks, as a BCP 47 code.
    pub language: String,
    /// Sample rate of the voice's PCM, in Hz.
    pub sample_rate: u32,
    /// Quality of the sound.
    pub quality: Quality,
    /// Licence of the voice's data, as its authors state it.
    pub license: String,
    /// Names of the speakers of a voice with several speakers; `NAME:SPEAKER` is a voice, too. The first
    /// speaker is the default.
    pub speakers: Vec<String>,
}

/// Range of tempos; others are clamped to it. Cloud Voice takes 0.75 to 1.75, and its public demo took
/// 0.5 to 2.
pub const TEMPOS: RangeInclusive<f32> = 0.5..=2.0;

/// Quality of a voice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// Close to a human speaker.
    Natural,
    /// Clear, but artificial.
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

/// A voice, loaded once and shared by all requests.
pub trait Voice: Send + Sync {
    /// Returns the properties of the voice.
    fn info(&self) -> &VoiceInfo;

    /// Synthesises one sentence as mono 16-bit PCM at `info().sample_rate`. `take` gets each piece as
    /// soon as it is made, and may break off. A voice that cannot synthesise in pieces passes all PCM at
    /// once. `tempo` is the speed within [`TEMPOS`], relative to that at which the voice was made: 1.0 is
    /// the original speed, 2.0 twice as fast. A text without anything to pronounce yields no samples. On
    /// one machine the same sentence and tempo yield the same samples, so a client that received half can
    /// request the rest again.
    ///
    /// # Errors
    /// Returns [`EngineError::Program`] or [`EngineError::Inference`] if the synthesis fails; the voice
    /// stays usable.
    fn speak_in_pieces(
        &self,
        sentence: &str,
        tempo: f32,
        take: &mut dyn FnMut(&[i16]) -> ControlFlow<()>,
    ) -> Result<(), EngineError>;

    /// Synthesises one sentence like [`speak_in_pieces`](Voice::speak_in_pieces), and returns all
    /// samples.
    ///
    /// # Errors
    /// Returns [`EngineError`] in the same cases as [`speak_in_pieces`](Voice::speak_in_pieces).
    fn speak(&self, sentence: &str, tempo: f32) -> Result<Vec<i16>, EngineError> {
        let mut pcm = Vec::new();
        self.speak_in_pieces(sentence, tempo, &mut |piece| {
            pcm.extend_from_slice(piece);
            ControlFlow::Continue(())
        })?;
        Ok(pcm)
    }

    /// Returns the voice of one of [`VoiceInfo::speakers`].
    fn speaker(&self, _name: &str) -> Option<Arc<dyn Voice>> {
        None
    }
}

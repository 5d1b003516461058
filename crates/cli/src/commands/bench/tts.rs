//! `voxline bench tts`: measures the latency and speed of voices, and how well a recogniser understands them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use serde_json::{Value, json};

use super::latency::Latencies;
use super::recording::samples;
use crate::arguments::{Common, RecognitionOptions};
use crate::config::{Config, Service};
use crate::exit_code::{CliError, Exit};
use crate::service::{Connection, Need, load_recognizer};
use crate::terminal::say;
use voxline::audio::FramePos;
use voxline::engine::{RECOGNIZER_RATE, RecognitionRequest, Recognizer, VoiceInfo, language_of};
use voxline::speech::{SpeechClient, SpeechOptions};
use voxline_engines::wer::WordErrors;
use voxline_support::clock::now;

/// Sentences spoken if no file is given.
const SENTENCES: &str = include_str!("sentences.txt");

#[derive(Args)]
pub(super) struct Arguments {
    /// File of sentences, one per line; lines that begin with # are skipped [default: thirty in English,
    /// thirty in Russian]
    #[arg(value_name = "FILE")]
    sentences: Option<PathBuf>,
    /// Voice to measure; may be repeated [default: all available; for a remote service, the one that it
    /// chooses]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    voice: Vec<String>,
    /// Recognise the synthesised speech, and count the wrong words
    #[arg(long)]
    round_trip: bool,
    #[command(flatten)]
    recognition: RecognitionOptions,
    /// Print a JSON object for each voice
    #[arg(long)]
    json: bool,
}

/// Measurements of a voice.
struct Spoken<'a> {
    voice: Option<&'a str>,
    language: Option<&'a str>,
    sentences: usize,
    /// Duration of the synthesised speech.
    length: Duration,
    /// Time that the synthesis took.
    wall: Duration,
    first_audio: Latencies,
    errors: Option<WordErrors>,
}

pub(super) async fn run(arguments: Arguments, common: Common) -> Result<Exit, CliError> {
    let Arguments { sentences, voice, round_trip, recognition, json } = arguments;
    let config = common.load(Some(recognition))?;
    let embedded = matches!(config.service()?, Service::Embedded);
    let text = sentences.as_deref().map_or_else(|| Ok(SENTENCES.to_owned()), read)?;
    let sentences: Vec<&str> =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let here = if embedded { voxline_engines::voices::discover(&config.models).list() } else { Vec::new() };
    let works = works(&voice, &here, &sentences);
    if works.iter().all(|(.., sentences)| sentences.is_empty()) {
        return Err(CliError::new(Exit::Input, "no sentence in a language of these voices"));
    }
    let recognizer =
        if round_trip { Some(tokio::task::block_in_place(|| load_recognizer(&config))?) } else { None };
    let connection = Connection::open(&config, Need::Speech).await?;
    let client = connection.client.speech().clone();
    let bench = Bench { client, config };
    let measuring = async {
        for (voice, language, sentences) in works.iter().filter(|(.., sentences)| !sentences.is_empty()) {
            let spoken = bench.measure(*voice, *language, sentences, recognizer.as_deref()).await?;
            say(&if json { format!("{}\n", spoken.json()) } else { spoken.text() })?;
        }
        Ok(Exit::Done)
    };
    let measured = measuring.await;
    connection.close().await;
    measured
}

fn read(path: &Path) -> Result<String, CliError> {
    fs::read_to_string(path)
        .map_err(|error| CliError::new(Exit::Input, format!("{}: {error}", path.display())))
}

/// Returns the voices with their language and sentences. A voice of unknown language speaks all sentences.
fn works<'a>(
    named: &'a [String],
    here: &'a [VoiceInfo],
    sentences: &[&'a str],
) -> Vec<(Option<&'a str>, Option<&'a str>, Vec<&'a str>)> {
    let work = |voice: &'a str| {
        let language = here.iter().find(|known| known.name == voice).map(|known| &*known.language);
        let fits = |sentence: &&str| language.is_none_or(|language| language == language_of(sentence));
        (Some(voice), language, sentences.iter().copied().filter(fits).collect())
    };
    match (named, here) {
        ([], []) => vec![(None, None, sentences.to_vec())],
        ([], here) => here.iter().map(|voice| work(&voice.name)).collect(),
        (named, _) => named.iter().map(|voice| work(voice)).collect(),
    }
}

/// A service, and the settings of its measurement.
struct Bench {
    client: SpeechClient,
    config: Config,
}

impl Bench {
    /// Measures a voice on the sentences, one after the other. A first request that loads the voice is not
    /// counted.
    async fn measure<'a>(
        &self,
        voice: Option<&'a str>,
        language: Option<&'a str>,
        sentences: &[&str],
        recognizer: Option<&dyn Recognizer>,
    ) -> Result<Spoken<'a>, CliError> {
        self.speak(voice, sentences[0]).await?;
        let mut spoken = Spoken {
            voice,
            language,
            sentences: sentences.len(),
            length: Duration::ZERO,
            wall: Duration::ZERO,
            first_audio: Latencies::default(),
            errors: recognizer.map(|_| WordErrors::default()),
        };
        for sentence in sentences {
            let begun = now();
            let (first, pcm) = self.speak(voice, sentence).await?;
            spoken.wall += begun.elapsed();
            spoken.length += FramePos(pcm.len() as u64).time(RECOGNIZER_RATE);
            spoken.first_audio.push(first);
            if let (Some(recognizer), Some(errors)) = (recognizer, &mut spoken.errors) {
                let language = self.config.language.as_deref().unwrap_or_else(|| language_of(sentence));
                let heard = tokio::task::block_in_place(|| hear(recognizer, language, &pcm))?;
                *errors = errors.and(WordErrors::between(sentence, &heard));
            }
        }
        Ok(spoken)
    }

    /// Synthesises a sentence as any client would. Returns the latency of the first audio, and all samples.
    async fn speak(&self, voice: Option<&str>, sentence: &str) -> Result<(Duration, Vec<i16>), CliError> {
        // A single attempt: a retry would be measured as slow synthesis.
        let voice_name = voice.map(str::to_owned);
        let options = SpeechOptions { voice: voice_name, attempts: 1, ..SpeechOptions::default() };
        let failed = |error| {
            let named = format!(" (voice {})", voice.unwrap_or("default"));
            CliError::from(error).with(&named)
        };
        let begun = now();
        let speech = self.client.speak(sentence, &options).resampled(RECOGNIZER_RATE);
        let mut speech = speech.expect("it is an ordinary rate");
        let (mut first, mut pcm) = (None, Vec::new());
        while let Some(piece) = speech.next().await {
            pcm.extend_from_slice(&piece.map_err(failed)?);
            first.get_or_insert_with(|| begun.elapsed());
        }
        Ok((first.unwrap_or_else(|| begun.elapsed()), samples(&pcm)))
    }
}

/// Returns the text recognised in `pcm`.
fn hear(recognizer: &dyn Recognizer, language: &str, pcm: &[i16]) -> Result<String, CliError> {
    let mut stream = recognizer.start(&RecognitionRequest::new().language(language))?;
    let mut segments = stream.push(pcm)?;
    segments.extend(stream.flush()?);
    Ok(segments.iter().map(|segment| segment.text.as_str()).collect::<Vec<_>>().join(" "))
}

impl Spoken<'_> {
    fn factor(&self) -> Option<f64> {
        let length = self.length.as_secs_f64();
        (length > 0.0).then(|| self.wall.as_secs_f64() / length)
    }

    fn text(&self) -> String {
        let voice = self.voice.unwrap_or("default");
        let language = self.language.map_or(String::new(), |language| format!(", {language}"));
        let (count, length) = (self.sentences, self.length.as_secs_f64());
        let [p50, p95, most] = [0.5, 0.95, 1.0].map(|share| {
            self.first_audio
                .quantile(share)
                .map_or("-".to_owned(), |time| format!("{:.3} s", time.as_secs_f64()))
        });
        let factor = self.factor().map_or("-".to_owned(), |factor| format!("{factor:.3}"));
        let errors = self.errors.map_or(String::new(), |errors| {
            let WordErrors { errors: wrong, words, .. } = errors;
            format!("; word error rate of the round trip {:.1} % ({wrong} of {words})", errors.percent())
        });
        format!(
            "{voice}{language}: {count} sentences, {length:.1} s; first audio: median {p50}, 95 % {p95}, last {most}; \
             real-time factor {factor}{errors}\n"
        )
    }

    fn json(&self) -> Value {
        let seconds = |share| self.first_audio.quantile(share).map(|time| time.as_secs_f64());
        json!({
            "voice": self.voice, "language": self.language, "sentences": self.sentences,
            "duration_s": self.length.as_secs_f64(), "wall_s": self.wall.as_secs_f64(),
            "real_time_factor": self.factor(), "first_audio_p50_s": seconds(0.5), "first_audio_p95_s": seconds(0.95),
            "first_audio_max_s": seconds(1.0), "words": self.errors.map(|errors| errors.words),
            "errors": self.errors.map(|errors| errors.errors),
            "wer_percent": self.errors.map(WordErrors::percent),
        })
    }
}

//! `voxline bench gateway`: measures the capacity of a gateway with concurrent live sessions, each streaming
//! a recording in real time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use futures::future::join_all;
use serde_json::json;

use super::latency::Latencies;
use super::live::{self, Heard};
use super::recording::{self, SAMPLE_RATE};
use crate::arguments::{Common, RecognitionOptions};
use crate::config::Service;
use crate::exit_code::{CliError, Exit};
use crate::service::{Connection, Need};
use crate::terminal::say;
use crate::typed::whole;
use voxline::audio::{AudioChunk, FRAME_BYTES, FramePos};
use voxline::session::Settings;
use voxline_gateway::Options;

/// Duration of a chunk as sent by a telephone or browser.
const CHUNK: Duration = Duration::from_millis(100);
/// Pause between two recordings, as between two utterances.
const PAUSE: Duration = Duration::from_secs(1);
/// Share of the finals that must arrive in time.
const SHARE: f64 = 0.95;

#[derive(Args)]
pub(super) struct Arguments {
    /// Recordings of speech: each session streams them one after another, starting at a different position
    #[arg(required = true, value_name = "FILE")]
    inputs: Vec<PathBuf>,
    /// Maximum number of sessions to try at once
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = whole(1..=u16::MAX))]
    sessions: u16,
    /// Duration of each session
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = whole(5..=86_400_u32))]
    seconds: u32,
    /// Longest allowed time from the end of speech to its final text
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    within: f64,
    /// Session limit of the embedded gateway, which is then offered all sessions in one run; otherwise it
    /// admits all sessions, and several runs search for the most that it carries
    #[arg(long, value_name = "COUNT", value_parser = whole(1..=u16::MAX))]
    max_sessions: Option<u16>,
    #[command(flatten)]
    recognition: RecognitionOptions,
    /// Print a JSON object for each run
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments, common: Common) -> Result<Exit, CliError> {
    let config = common.load(Some(arguments.recognition.clone()))?;
    let embedded = matches!(config.service()?, Service::Embedded);
    if arguments.max_sessions.is_some() && !embedded {
        return Err(CliError::new(Exit::Setup, "--max-sessions: applies to the embedded gateway only"));
    }
    let inputs = arguments.inputs.clone();
    let read = tokio::task::spawn_blocking(move || {
        inputs.iter().map(|input| speech(input)).collect::<Result<Vec<_>, _>>()
    });
    let speech = read.await.map_err(|panic| CliError::new(Exit::Input, panic.to_string()))??.concat();
    if speech.is_empty() {
        return Err(CliError::new(Exit::Input, "the recordings hold no audio"));
    }
    let most = arguments.sessions;
    let options =
        Options { max_sessions: arguments.max_sessions.unwrap_or(most).into(), ..Options::default() };
    let threads = options.threads;
    let connection = Connection::open_with(&config, Need::Recognition, options).await?;
    let bench = Bench { connection, speech: speech.into(), arguments, language: config.language };

    if bench.arguments.max_sessions.is_some() {
        bench.try_with(most).await?;
    } else {
        let carried = bench.search(most).await?;
        if !bench.arguments.json {
            let (percent, within) = (SHARE * 100.0, bench.arguments.within);
            let threads = if embedded { format!(", on {threads} threads") } else { String::new() };
            say(&format!(
                "carries {carried} of {most}: {percent} % of their finals come within {within} s{threads}\n"
            ))?;
        }
    }
    bench.connection.close().await;
    Ok(Exit::Done)
}

/// Returns all of a recording and a pause, as 16-bit little-endian PCM.
fn speech(input: &Path) -> Result<Vec<u8>, CliError> {
    let mut speech = recording::pcm(input)?;
    if !speech.is_empty() {
        let silence = PAUSE.as_millis() as usize * SAMPLE_RATE as usize / 1_000;
        speech.resize(speech.len() + silence * FRAME_BYTES, 0);
    }
    Ok(speech)
}

/// A service, and the input of its measurement.
struct Bench {
    connection: Connection,
    speech: Bytes,
    arguments: Arguments,
    language: Option<String>,
}

/// Result of a run of concurrent sessions.
#[derive(Default)]
struct Run {
    admitted: usize,
    refused: usize,
    finals: Latencies,
    first_partials: Latencies,
}

impl Bench {
    /// Searches for the largest number of sessions, up to `most`, that are all served in time.
    async fn search(&self, most: u16) -> Result<u16, CliError> {
        let (mut carried, mut failed) = (0, most.saturating_add(1));
        // Bisect from the middle: with few sessions there are few finals, and a single one can decide.
        while carried + 1 < failed {
            let next = carried + (failed - carried) / 2;
            if self.try_with(next).await? { carried = next } else { failed = next }
        }
        Ok(carried)
    }

    /// Runs `sessions` at once, and reports the result. Returns whether all were served in time.
    async fn try_with(&self, sessions: u16) -> Result<bool, CliError> {
        let mut run = Run::default();
        for spoken in join_all((0..sessions).map(|number| self.speak(number, sessions))).await {
            match spoken? {
                Some((finals, first_partials)) => {
                    run.admitted += 1;
                    run.finals.merge(finals);
                    run.first_partials.merge(first_partials);
                }
                None => run.refused += 1,
            }
        }
        self.tell(&run)?;
        let within = Duration::try_from_secs_f64(self.arguments.within).unwrap_or(Duration::MAX);
        // Without any final there is none that is late.
        Ok(run.refused == 0 && run.finals.quantile(SHARE).is_none_or(|latency| latency <= within))
    }

    fn tell(&self, run: &Run) -> Result<(), CliError> {
        let Run { admitted, refused, finals, first_partials } = run;
        let seconds = |latencies: &Latencies, share| latencies.quantile(share).map(|time| time.as_secs_f64());
        let [p50, p95, most] = [0.5, SHARE, 1.0].map(|share| seconds(finals, share));
        let partial = seconds(first_partials, 0.5);
        if self.arguments.json {
            let object = json!({
                "sessions": admitted, "refused": refused, "finals": finals.count(),
                "final_p50_s": p50, "final_p95_s": p95, "final_max_s": most, "first_partial_p50_s": partial,
            });
            return say(&format!("{object}\n"));
        }
        let of = |time: Option<f64>| time.map_or("-".to_owned(), |time| format!("{time:.2} s"));
        let (p50, p95, most, partial) = (of(p50), of(p95), of(most), of(partial));
        say(&format!(
            "{admitted} sessions, {refused} refused; {} finals: median {p50}, 95 % {p95}, last {most}; \
             first partial: median {partial}\n",
            finals.count()
        ))
    }

    /// Runs a session. Returns the latency of its finals after the end of speech, and of its first partial
    /// results after the start of an utterance; `None` if the session was refused.
    async fn speak(&self, number: u16, sessions: u16) -> Result<Option<(Latencies, Latencies)>, CliError> {
        let frames = u64::from(self.arguments.seconds) * u64::from(SAMPLE_RATE);
        let settings = |settings: &mut Settings| {
            settings.request.language.clone_from(&self.language);
            settings.seed = number.into();
            // Don't retry: refusals are part of the measurement.
            settings.timeouts.first_contact = Duration::ZERO;
        };
        let offset = self.speech.len() / FRAME_BYTES * usize::from(number) / usize::from(sessions);
        let chunks = chunks(&self.speech, offset, frames);
        let Some(Heard { finals, first_partials }) = live::speak(&self.connection, settings, chunks).await?
        else {
            return Ok(None);
        };
        let mut latencies = Latencies::default();
        for (segment, late) in finals {
            // The last utterance is ended by the end of the audio and not by endpointing, so its latency is
            // not comparable.
            if !segment.text.is_empty() && segment.range.end.0 < frames {
                latencies.push(late);
            }
        }
        Ok(Some((latencies, first_partials)))
    }
}

/// Returns `frames` frames of the speech in a loop, starting at the frame `offset`.
fn chunks(speech: &Bytes, offset: usize, frames: u64) -> impl Iterator<Item = AudioChunk> {
    let length = CHUNK.as_millis() as usize * SAMPLE_RATE as usize / 1_000;
    let mut at = offset * FRAME_BYTES;
    (0..frames / length as u64).map(move |index| {
        let mut payload = Vec::with_capacity(length * FRAME_BYTES);
        while payload.len() < length * FRAME_BYTES {
            let rest = &speech[at..];
            let part = rest.len().min(length * FRAME_BYTES - payload.len());
            payload.extend_from_slice(&rest[..part]);
            at = (at + part) % speech.len();
        }
        let start = FramePos(index * length as u64);
        AudioChunk::new(start.to(start + length as u64), payload.into())
    })
}

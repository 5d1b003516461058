//! `voxline transcribe`: transcribes recordings.

mod cues;
mod job;
mod ledger;
mod recording;
mod spooling;

use std::num::NonZero;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::OnceLock;
use std::time::Duration;

use clap::{Args, ValueEnum};
use futures::{StreamExt, future, stream};
use tokio_util::sync::CancellationToken;

use self::job::{Job, SAMPLE_RATE, SessionOptions};
use crate::arguments::{Common, RecognitionOptions};
use crate::exit_code::{CliError, Exit};
use crate::hints::{HintOptions, Hints};
use crate::input::Reading;
use crate::progress::Displays;
use crate::service::{Connection, Need};
use crate::signals::{Signals, Stop};
use crate::target::Target;
use crate::terminal::{complain, keep_stdin_apart};
use crate::typed::whole;
use voxline::Client;
use voxline::decode::Channels;
use voxline::pace::Pace;
use voxline::protocol::Latency;
use voxline::session::Overflow;
use voxline::transcript::Format;

/// Largest number of recordings that are transcribed at once. Each has a replay buffer.
const MOST_AT_ONCE: usize = 16;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Recordings, as files or https URLs: WAV, AIFF, CAF, FLAC, MP3, Ogg, WebM, Matroska, M4A; `-` for
    /// standard input
    #[arg(required = true, value_name = "FILE")]
    inputs: Vec<PathBuf>,
    /// Format of the transcript: text, jsonl, srt or vtt [default: by the extension of the output, .txt,
    /// .jsonl, .srt or .vtt; otherwise text]
    #[arg(long)]
    format: Option<Format>,
    /// Output file; a directory, or a path that ends in a slash, receives one file per recording
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    #[command(flatten)]
    recognition: RecognitionOptions,
    #[command(flatten)]
    hints: HintOptions,
    /// Don't show partial results
    #[arg(long)]
    no_partials: bool,
    #[command(flatten)]
    reading: Reading,
    /// Speaker of each channel, with --channels split [default: agent,customer for two channels, otherwise
    /// channel 1,...]
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    speakers: Vec<String>,
    /// Speed at which audio is fed: max, realtime, or a multiple of real time
    #[arg(long, default_value = "max", value_name = "SPEED")]
    pace: Pace,
    /// Seconds of audio kept in memory until their text arrives, 30 to 3600; must exceed what is heard
    /// together: 51 s of a recording, 29 s of live audio. With 300 s, a recording takes the least
    /// computing time [default: 300 for recordings, 60 for live audio]
    #[arg(long, value_name = "SECONDS", value_parser = whole(30..=3600_u32))]
    buffer: Option<u32>,
    /// Behaviour when the buffer is full: block (stop reading until there is room) or drop-oldest (lose
    /// audio, and report the gap)
    #[arg(long, value_name = "WHAT", default_value = "block", hide_possible_values = true)]
    on_full: OnFull,
    /// Seconds to keep trying while the service is unavailable, 1 to 86400
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = whole(1..=86_400_u32))]
    patience: u32,
    #[command(flatten)]
    spooling: spooling::Flags,
    /// Report on standard error what became of every frame, one line per session: text, or =json
    #[arg(
        long, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "text",
        hide_possible_values = true
    )]
    ledger: Option<ledger::Form>,
    #[command(flatten, next_help_heading = "Subtitles")]
    cues: cues::Cues,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnFull {
    Block,
    DropOldest,
}

/// A recording, and the result of checking that it is there.
type Checked = (PathBuf, Result<(), CliError>);

pub(crate) async fn run(arguments: Arguments, common: Common) -> Result<Exit, CliError> {
    arguments.check()?;
    let target = arguments.target()?;
    let hints = arguments.hints.clone().settle()?;
    let config = common.load(Some(arguments.recognition.clone()))?;
    keep_stdin_apart(&config, arguments.inputs.iter().any(|input| input.as_os_str() == "-"))?;
    let recordings = arguments.check_recordings();
    if recordings.iter().all(|(_, checked)| checked.is_err()) {
        // There is nothing to do: don't start a service for it.
        let exits = recordings.into_iter().map(|(_, checked)| told(checked.map(|()| Exit::Done)));
        return Ok(worst(&exits.collect::<Vec<_>>()));
    }
    let connection = Connection::open(&config, Need::Recognition).await?;
    target.create()?;
    let job = arguments.job(connection.client.clone(), config.language, hints, target);
    let at_once = job.at_once(&recordings, &connection);
    let mut signals = Signals::new()?;
    let exits = tokio::select! {
        exits = job.transcribe_all(recordings, at_once) => exits,
        // The dropped work ends by itself.
        stopped = job.stop(&mut signals) => return Err(stopped),
    };
    drop(job);
    connection.close().await;
    Ok(worst(&exits))
}

impl Arguments {
    /// Checks the flags that depend on each other.
    fn check(&self) -> Result<(), CliError> {
        if !self.speakers.is_empty() && self.reading.channels != Channels::Split {
            return Err(CliError::new(Exit::Setup, "--speakers: names go with --channels split"));
        }
        if self.on_full == OnFull::DropOldest && self.spooling.is_on() {
            let reason = "--on-full drop-oldest: with --spool the disk is the buffer, and nothing is dropped";
            return Err(CliError::new(Exit::Setup, reason));
        }
        Ok(())
    }

    fn target(&self) -> Result<Target, CliError> {
        let (output, format) = (self.output.clone(), self.format);
        Target::new(output, format, self.cues.settle(), SAMPLE_RATE, &self.inputs)
    }

    /// Checks that the recordings are there: a misspelt name should be reported before an hour's work on the
    /// other recordings.
    fn check_recordings(&self) -> Vec<Checked> {
        let checked = |input: &PathBuf| (input.clone(), self.reading.check(input));
        self.inputs.iter().map(checked).collect()
    }

    /// Returns the settings of the run, for a service and recordings in `language`.
    fn job(self, client: Client, language: Option<String>, hints: Hints, target: Target) -> Job {
        let session = SessionOptions {
            language,
            hints,
            partials: !self.no_partials,
            pace: self.pace,
            patience: Duration::from_secs(self.patience.into()),
            replay_seconds: self.buffer.map(u64::from),
            overflow: match self.on_full {
                OnFull::Block => Overflow::Block,
                OnFull::DropOldest => Overflow::DropOldest,
            },
        };
        Job {
            client,
            session,
            target,
            reading: self.reading,
            speakers: self.speakers,
            spooling: self.spooling.settle(),
            ledger: self.ledger,
            displays: Displays::new(),
            interrupted: CancellationToken::new(),
            stopped: OnceLock::new(),
        }
    }
}

impl Job {
    /// Returns the number of recordings to transcribe at once: as many as the embedded gateway has threads,
    /// if each has a file of its own and nobody waits for its text.
    fn at_once(&self, recordings: &[Checked], connection: &Connection) -> usize {
        let is_live = |(input, checked): &Checked| checked.is_ok() && self.latency(input) == Latency::Live;
        if !self.target.is_directory() || recordings.iter().any(is_live) {
            return 1;
        }
        connection.threads().map_or(1, NonZero::get).min(MOST_AT_ONCE)
    }

    /// Transcribes recordings in their order, `at_once` at once, until the run is interrupted or its output
    /// is not read any more. Returns the exit code of each.
    async fn transcribe_all(&self, recordings: Vec<Checked>, at_once: usize) -> Vec<Exit> {
        let transcribe = |(place, (input, checked)): (usize, Checked)| async move {
            let result = match checked {
                Ok(()) => self.transcribe(&input).await,
                Err(error) => Err(error),
            };
            let unread = result.as_ref().is_err_and(|error| error.unread);
            (place, self.displays.around(|| told(result)), unread)
        };
        let recordings = stream::iter(recordings.into_iter().enumerate());
        let recordings = recordings.take_while(|_| future::ready(!self.interrupted.is_cancelled()));
        let mut results = pin!(recordings.map(transcribe).buffer_unordered(at_once));
        let mut exits = Vec::new();
        while let Some((place, exit, unread)) = results.next().await {
            exits.push((place, exit));
            if unread {
                break;
            }
        }
        exits.sort_unstable_by_key(|(place, _)| *place);
        exits.into_iter().map(|(_, exit)| exit).collect()
    }

    /// Waits for the request to stop at once, and returns its error. A first request ends the audio instead,
    /// and speech up to that point is still recognised.
    async fn stop(&self, signals: &mut Signals) -> CliError {
        let spooled = self.spooling.is_some();
        let mut stop = signals.next().await;
        // On termination with a spool, stop at once: the machine may be shutting down, and a later run
        // resumes.
        if !(stop == Stop::Terminate && spooled) {
            let _ = self.stopped.set(stop);
            self.interrupted.cancel();
            stop = signals.next().await;
        }
        let interrupted = stop.error(None);
        if spooled {
            interrupted.with("; the rest is in the spool: run the same command again to continue")
        } else {
            interrupted
        }
    }
}

/// Reports an error at once, since the next recording may take an hour, and returns the exit code.
fn told(result: Result<Exit, CliError>) -> Exit {
    result.unwrap_or_else(|error| {
        complain(&error);
        error.exit
    })
}

/// Returns the exit code of several recordings: an interruption, or else the first failure.
fn worst(exits: &[Exit]) -> Exit {
    let stopped = exits.iter().find(|exit| matches!(exit, Exit::Interrupted | Exit::Terminated));
    *stopped.or_else(|| exits.iter().find(|exit| **exit != Exit::Done)).unwrap_or(&Exit::Done)
}

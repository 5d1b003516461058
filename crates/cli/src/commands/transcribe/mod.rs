//! `voxline transcribe`: transcribes recordings.

mod channel_stream;
mod cues;
mod job;
mod ledger;
mod recording;
mod spooling;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;

use self::job::Job;
use crate::exit_code::{CliError, Exit};
use crate::input::Reading;
use crate::service::{Connection, Need};
use crate::signals::{Signals, Stop};
use crate::target::Target;
use crate::typed::whole;
use crate::{Common, Hearing, complain, keep_stdin_apart};
use voxline::decode::Channels;
use voxline::pace::Pace;
use voxline::session::{Overflow, Settings};
use voxline::transcript::Format;

/// Sample rate of the session stream, as recognisers expect it.
const SAMPLE_RATE: u32 = 16_000;

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
    hearing: Hearing,
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
    /// Seconds of audio kept in memory until their text arrives, 30 to 3600; must exceed the longest
    /// utterance, 28 s
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = whole(30..=3600_u32))]
    buffer: u32,
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

pub(crate) async fn run(arguments: Arguments, common: Common) -> Result<Exit, CliError> {
    let Arguments { inputs, format, output, hearing, no_partials, reading, speakers, pace, .. } = arguments;
    let Arguments { buffer, on_full, patience, spooling, ledger, cues, .. } = arguments;
    if !speakers.is_empty() && reading.channels != Channels::Split {
        return Err(CliError::new(Exit::Setup, "--speakers: names go with --channels split"));
    }
    let replay_frames = u64::from(buffer) * u64::from(SAMPLE_RATE);
    let spooling = spooling.settle(SAMPLE_RATE, replay_frames);
    let overflow = match on_full {
        OnFull::Block => Overflow::Block,
        OnFull::DropOldest if spooling.is_some() => {
            let reason = "--on-full drop-oldest: with --spool the disk is the buffer, and nothing is dropped";
            return Err(CliError::new(Exit::Setup, reason));
        }
        OnFull::DropOldest => Overflow::DropOldest,
    };
    let target = Target::new(output, format, cues.settle(), SAMPLE_RATE, &inputs)?;
    let config = common.load(Some(hearing))?;
    keep_stdin_apart(&config, inputs.iter().any(|input| input.as_os_str() == "-"))?;
    // Report a misspelt name before an hour's work on the other recordings.
    let checked: Vec<_> = inputs.iter().map(|input| reading.check(input)).collect();
    if checked.iter().all(Result::is_err) {
        // There is nothing to do: don't start a service for it.
        let exits: Vec<Exit> =
            checked.into_iter().map(|checked| told(checked.map(|()| Exit::Done))).collect();
        return Ok(worst(&exits));
    }
    let connection = Connection::open(&config, Need::Recognition).await?;
    target.create()?;
    let mut settings = Settings::new(SAMPLE_RATE);
    settings.request.language = config.language;
    settings.request.partials = !no_partials;
    settings.replay.overflow = overflow;
    settings.replay.frames = replay_frames;
    settings.timeouts.give_up = Duration::from_secs(patience.into());
    settings.timeouts.first_contact = settings.timeouts.first_contact.min(settings.timeouts.give_up);
    let spooled = spooling.is_some();
    let job = Job {
        connector: connection.connector(),
        connection: &connection,
        settings,
        target,
        reading,
        speakers,
        pace,
        spooling: spooling.map(|spooling| Arc::new(spooling.at(&connection.endpoint))),
        ledger,
        interrupted: CancellationToken::new(),
        stopped: OnceLock::new(),
    };
    let mut signals = Signals::new()?;
    let mut exits = Vec::new();
    let work = async {
        for (input, checked) in inputs.iter().zip(checked) {
            let result = match checked {
                Ok(()) => job.transcribe(input).await,
                Err(error) => Err(error),
            };
            let unread = result.as_ref().is_err_and(|error| error.unread);
            exits.push(told(result));
            if unread || job.interrupted.is_cancelled() {
                break;
            }
        }
    };
    let stopping = async {
        // On termination with a spool, stop at once: the machine may be shutting down, and a later run
        // resumes.
        let stop = signals.next().await;
        if stop == Stop::Terminate && spooled {
            return stop;
        }
        // Ends the audio; speech up to that point is still recognised.
        let _ = job.stopped.set(stop);
        job.interrupted.cancel();
        signals.next().await
    };
    tokio::select! {
        () = work => {}
        // The dropped work ends by itself.
        stop = stopping => {
            let interrupted = stop.error(None);
            return Err(match spooled {
                true => interrupted.with("; the rest is in the spool: run the same command again to continue"),
                false => interrupted,
            });
        }
    }
    drop(job);
    connection.close().await;
    Ok(worst(&exits))
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

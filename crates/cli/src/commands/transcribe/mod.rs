//! `voxline transcribe`: recordings in, text out.

mod cues;
mod ledger;
mod line;
mod recording;
mod spooling;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;

use self::recording::Job;
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
use voxline_support::random;

/// The rate of the session stream: what recognisers hear.
const SAMPLE_RATE: u32 = 16_000;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Recordings, as files or https URLs: WAV, AIFF, CAF, FLAC, MP3, Ogg, WebM, Matroska, M4A; `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    inputs: Vec<PathBuf>,
    /// Format of the transcript: text, jsonl, srt or vtt [default: by the output's name, .txt, .jsonl, .srt
    /// or .vtt; else text]
    #[arg(long)]
    format: Option<Format>,
    /// Write to a file; with a directory, or a path that ends in a slash, to a file for each recording
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    #[command(flatten)]
    hearing: Hearing,
    /// Don't show guesses at what is being said
    #[arg(long)]
    no_partials: bool,
    #[command(flatten)]
    reading: Reading,
    /// Who speaks on which channel, with --channels split [default: agent,customer; with other counts: channel 1,...]
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    speakers: Vec<String>,
    /// How fast audio is fed: max, realtime, or how many times as fast as it is heard
    #[arg(long, default_value = "max", value_name = "SPEED")]
    pace: Pace,
    /// Seconds of audio kept in memory until their text has come, 30 to 3600: more than the longest utterance, 28 s
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = whole(30..=3600_u32))]
    buffer: u32,
    /// What a full buffer means: block (read no more until there is room) or drop-oldest (lose audio, and tell of the gap)
    #[arg(long, value_name = "WHAT", default_value = "block", hide_possible_values = true)]
    on_full: OnFull,
    /// Seconds to go on trying while the service is away, 1 to 86400
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = whole(1..=86_400_u32))]
    patience: u32,
    #[command(flatten)]
    spooling: spooling::Flags,
    /// Say on standard error where every frame went, in a line for each session: text, or =json
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
    // A misspelt name is told before an hour's work on the others.
    let checked: Vec<_> = inputs.iter().map(|input| reading.check(input)).collect();
    if checked.iter().all(Result::is_err) {
        // Nothing to do: don't start a service for it.
        let exits: Vec<Exit> =
            checked.into_iter().map(|checked| told(checked.map(|()| Exit::Done))).collect();
        return Ok(worst(&exits));
    }
    let connection = Connection::open(&config, Need::Recognition).await?;
    target.create()?;
    let mut settings = Settings::new(SAMPLE_RATE);
    settings.language = config.language;
    settings.partials = !no_partials;
    settings.seed = random::seed();
    settings.overflow = overflow;
    settings.replay_frames = replay_frames;
    settings.give_up = Duration::from_secs(patience.into());
    settings.first_contact = settings.first_contact.min(settings.give_up);
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
        // A machine that shuts down means to go on later.
        let stop = signals.next().await;
        if stop == Stop::Terminate && spooled {
            return stop;
        }
        // Ends the audio; what was said until then is still recognised.
        let _ = job.stopped.set(stop);
        job.interrupted.cancel();
        signals.next().await
    };
    tokio::select! {
        () = work => {}
        // What is dropped here ends by itself.
        stop = stopping => {
            let interrupted = stop.error(None);
            return Err(match spooled {
                true => interrupted.with("; the rest is in the spool, and the same command goes on with it"),
                false => interrupted,
            });
        }
    }
    drop(job);
    connection.close().await;
    Ok(worst(&exits))
}

/// Tells the user of an error at once: the next recording may take an hour.
fn told(result: Result<Exit, CliError>) -> Exit {
    result.unwrap_or_else(|error| {
        complain(&error);
        error.exit
    })
}

/// The exit code of several recordings: an interruption, else the first trouble.
fn worst(exits: &[Exit]) -> Exit {
    let stopped = exits.iter().find(|exit| matches!(exit, Exit::Interrupted | Exit::Terminated));
    *stopped.or_else(|| exits.iter().find(|exit| **exit != Exit::Done)).unwrap_or(&Exit::Done)
}

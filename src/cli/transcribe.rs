//! `voxline transcribe`: recordings in, text out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use futures::{FutureExt, TryFutureExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::exit_code::{CliError, Exit};
use super::progress::Progress;
use super::service::{Connection, Need};
use super::signals::Signals;
use super::target::{Output, Target};
use super::{Common, complain};
use crate::audio::Feed;
use crate::pipeline::{self, Pipeline};
use crate::session::{self, Settings};
use crate::source::Source;
use crate::transcript::{Format, TranscriptEvent, WriterError};
use crate::transport::WebSocketConnector;

/// The rate of the session stream: what recognisers hear.
const SAMPLE_RATE: u32 = 16_000;
/// Events that may wait for a slow output.
const EVENTS: usize = 64;

#[derive(Args)]
pub(super) struct Arguments {
    /// Recordings: WAV, AIFF, CAF, FLAC, MP3, Ogg Vorbis, M4A; `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    inputs: Vec<PathBuf>,
    /// Format of the transcript: text, jsonl, srt or vtt
    #[arg(long, default_value = "text")]
    format: Format,
    /// Write to a file; with a directory, or a path that ends in a slash, to a file for each recording
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Language spoken, such as en or ru [default: detected]
    #[arg(long, env = "VOXLINE_LANGUAGE")]
    language: Option<String>,
    /// Don't show guesses at what is being said
    #[arg(long)]
    no_partials: bool,
}

pub(super) async fn run(arguments: Arguments, common: Common) -> Result<Exit, CliError> {
    let Arguments { inputs, format, output, language, no_partials } = arguments;
    let target = Target::new(output, format, SAMPLE_RATE, &inputs)?;
    let config = common.load(language)?;
    // A misspelt name is told before an hour's work on the others.
    let checked: Vec<_> = inputs.iter().map(|input| open(input).map(drop)).collect();
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
    settings.seed = seed();
    let job = Job {
        connector: WebSocketConnector::new(connection.endpoint.clone())?,
        connection: &connection,
        settings,
        target,
        interrupted: CancellationToken::new(),
    };
    let mut signals = Signals::new()?;
    let mut exits = Vec::new();
    let work = async {
        for (input, checked) in inputs.iter().zip(checked) {
            let result = match checked {
                Ok(()) => job.transcribe(input).await,
                Err(error) => Err(error),
            };
            exits.push(told(result));
            if job.interrupted.is_cancelled() {
                break;
            }
        }
    };
    let stopping = async {
        signals.next().await;
        // Ends the audio; what was said until then is still recognised.
        job.interrupted.cancel();
        signals.next().await;
    };
    tokio::select! {
        () = work => {}
        // What is dropped here ends by itself.
        () = stopping => return Err(CliError::new(Exit::Interrupted, "interrupted")),
    }
    drop(job);
    connection.close().await;
    Ok(worst(&exits))
}

fn open(input: &Path) -> Result<Source, CliError> {
    match input.as_os_str() == "-" {
        true => Ok(Source::stdin()),
        false => Ok(Source::open(input)?),
    }
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
    match exits.contains(&Exit::Interrupted) {
        true => Exit::Interrupted,
        false => exits.iter().copied().find(|exit| *exit != Exit::Done).unwrap_or(Exit::Done),
    }
}

/// What all recordings of a run share.
struct Job<'a> {
    connection: &'a Connection,
    connector: WebSocketConnector,
    settings: Settings,
    target: Target,
    interrupted: CancellationToken,
}

impl Job<'_> {
    async fn transcribe(&self, input: &Path) -> Result<Exit, CliError> {
        let source = open(input)?;
        let name = source.name().to_owned();
        let interrupted = || CliError::new(Exit::Interrupted, format!("{name}: interrupted"));
        // Probing reads, and reading may block.
        let opening = tokio::task::spawn_blocking(|| Pipeline::open(source, pipeline::Options::default()));
        let opened = tokio::select! {
            opened = opening => opened,
            () = self.interrupted.cancelled() => return Err(interrupted()),
        };
        let pipeline = opened.map_err(|panic| CliError::new(Exit::Input, format!("{name}: {panic}")))??;
        let info = pipeline.info();
        let duration =
            info.frames.map(|frames| Duration::from_secs_f64(frames as f64 / f64::from(info.sample_rate)));
        let mut writer = self.target.open(input)?;
        let progress = Progress::new(&name, SAMPLE_RATE, duration);

        let (mut lines, worker) = pipeline.start();
        let audio = lines.remove(0);
        let (feed, session_audio) = mpsc::channel(1);
        let (events, mut transcript) = mpsc::channel(EVENTS);
        let tokens = &self.connection.tokens;
        let session = session::run(&self.connector, tokens, self.settings.clone(), session_audio, events);
        let writing = async {
            let mut spoken = false;
            while let Some(event) = transcript.recv().await {
                spoken |= matches!(&event, TranscriptEvent::Final(segment) if !segment.text.is_empty());
                show(event, &mut writer, &progress)?;
            }
            writer.finish()?;
            Ok(spoken)
        };
        let forwarding = forward(audio, feed, &self.interrupted, &progress);
        // An output that fails ends the work: the session is dropped, which ends the worker.
        let (session, spoken, ()) = tokio::try_join!(
            session.map(Ok),
            writing.map_err(|error: WriterError| {
                CliError::new(Exit::Output, format!("{}: {error}", self.target.name(input)))
            }),
            forwarding.map(Ok),
        )?;
        drop(progress);
        session?;
        if self.interrupted.is_cancelled() {
            return Err(interrupted());
        }
        let joined = tokio::task::spawn_blocking(|| worker.join()).await;
        joined.map_err(|panic| CliError::new(Exit::Input, format!("{name}: {panic}")))??;
        match spoken {
            true => Ok(Exit::Done),
            false => Err(CliError::new(Exit::Nothing, format!("{name}: no speech recognised"))),
        }
    }
}

/// Carries audio from the worker to the session. The user's interruption is the end of the audio: what was said until
/// then is still recognised.
async fn forward(
    mut audio: mpsc::Receiver<Feed>,
    session: mpsc::Sender<Feed>,
    interrupted: &CancellationToken,
    progress: &Progress,
) {
    let carrying = async {
        // Without a feed the worker died; the closed channel tells the session.
        while let Some(feed) = audio.recv().await {
            let end = feed == Feed::End;
            if session.send(feed).await.is_err() || end {
                return;
            }
        }
    };
    tokio::select! {
        () = carrying => {}
        () = interrupted.cancelled() => {
            progress.interrupted();
            let _ = session.send(Feed::End).await;
        }
    }
}

fn show(event: TranscriptEvent, writer: &mut Output, progress: &Progress) -> Result<(), WriterError> {
    match event {
        TranscriptEvent::Partial { text, range, .. } => progress.guess(&text, range.end),
        TranscriptEvent::Final(segment) => {
            progress.around(|| writer.segment(&segment))?;
            progress.reach(segment.range.end);
        }
        TranscriptEvent::Gap { range } => progress.around(|| writer.gap(range))?,
        TranscriptEvent::Reconnected { .. } | TranscriptEvent::End { .. } => {}
    }
    Ok(())
}

/// Different for each run, so that clients that fail together don't retry together.
#[expect(clippy::disallowed_methods, reason = "this is where a session's jitter comes from")]
fn seed() -> u64 {
    let mut bytes = [0; 8];
    // Without a generator the jitter is merely the same as elsewhere.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

//! `voxline transcribe`: recordings in, text out.

use std::path::{Path, PathBuf};

use clap::Args;
use futures::future::join_all;
use futures::{FutureExt, TryFutureExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::exit_code::{CliError, Exit};
use super::input::{self, Reading};
use super::progress::Progress;
use super::service::{Connection, Need};
use super::signals::Signals;
use super::target::{Output, Target};
use super::{Common, complain};
use crate::audio::Feed;
use crate::decode::Channels;
use crate::pace::{Pace, Pacer};
use crate::pipeline::{self, Pipeline};
use crate::session::{self, SessionError, Settings};
use crate::transcript::{Format, Merge, TranscriptEvent, WriterError};
use crate::transport::WebSocketConnector;

/// The rate of the session stream: what recognisers hear.
const SAMPLE_RATE: u32 = 16_000;
/// Events that may wait for a slow output.
const EVENTS: usize = 64;

#[derive(Args)]
pub(super) struct Arguments {
    /// Recordings, as files or https URLs: WAV, AIFF, CAF, FLAC, MP3, Ogg, WebM, Matroska, M4A; `-` for standard input
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
    #[command(flatten)]
    reading: Reading,
    /// Who speaks on which channel, with --channels split [default: agent,customer; with other counts: channel 1,...]
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    speakers: Vec<String>,
    /// How fast audio is fed: max, realtime, or how many times as fast as it is heard
    #[arg(long, default_value = "max", value_name = "SPEED")]
    pace: Pace,
}

pub(super) async fn run(arguments: Arguments, common: Common) -> Result<Exit, CliError> {
    let Arguments { inputs, format, output, language, no_partials, reading, speakers, pace } = arguments;
    if !speakers.is_empty() && reading.channels != Channels::Split {
        return Err(CliError::new(Exit::Setup, "--speakers: names go with --channels split"));
    }
    let target = Target::new(output, format, SAMPLE_RATE, &inputs)?;
    let config = common.load(language)?;
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
    settings.seed = seed();
    let job = Job {
        connector: WebSocketConnector::new(connection.endpoint.clone())?,
        connection: &connection,
        settings,
        target,
        reading,
        speakers,
        pace,
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
    reading: Reading,
    speakers: Vec<String>,
    pace: Pace,
    interrupted: CancellationToken,
}

impl Job<'_> {
    async fn transcribe(&self, input: &Path) -> Result<Exit, CliError> {
        let pipeline = self.open(input).await?;
        let name = pipeline.name().to_owned();
        let duration = pipeline.info().duration();
        let speakers = self.speakers(&name, pipeline.lines())?;
        let mut output = self.target.open(input)?;
        let progress = Progress::new(&name, SAMPLE_RATE, duration);

        let (lines, worker) = pipeline.start();
        let (events, mut transcript) = mpsc::channel(EVENTS);
        let mut merge = Merge::new(lines.len());
        let lines = lines.into_iter().enumerate();
        let sessions =
            join_all(lines.map(|(line, audio)| self.session(line, audio, events.clone(), &progress)));
        // The last line to end closes the channel.
        drop(events);
        let writing = async {
            let mut spoken = false;
            while let Some((line, event)) = transcript.recv().await {
                for (line, event) in merge.push(line, event) {
                    spoken |= matches!(&event, TranscriptEvent::Final(segment) if !segment.text.is_empty());
                    show(event, speakers.get(line).map(String::as_str), &mut output, &progress)?;
                }
            }
            output.finish()?;
            Ok(spoken)
        };
        // An output that fails ends the work: the sessions are dropped, which ends the worker.
        let (sessions, spoken) = tokio::try_join!(
            sessions.map(Ok),
            writing.map_err(|error: WriterError| {
                CliError::new(Exit::Output, format!("{}: {error}", self.target.name(input)))
            }),
        )?;
        drop(progress);
        sessions.into_iter().collect::<Result<Vec<_>, _>>()?;
        if self.interrupted.is_cancelled() {
            return Err(interrupted(&name));
        }
        let joined = tokio::task::spawn_blocking(|| worker.join()).await;
        joined.map_err(|panic| CliError::new(Exit::Input, format!("{name}: {panic}")))??;
        match spoken {
            true => Ok(Exit::Done),
            false => Err(CliError::new(Exit::Nothing, format!("{name}: no speech recognised"))),
        }
    }

    /// Opens a recording on a thread of its own: probing reads, and reading may block.
    async fn open(&self, input: &Path) -> Result<Pipeline, CliError> {
        let (reading, path) = (self.reading, input.to_owned());
        let opening = tokio::task::spawn_blocking(move || {
            let options = pipeline::Options { channels: reading.channels, ..pipeline::Options::default() };
            Ok(Pipeline::open(reading.open(&path)?, options)?)
        });
        let name = input::name(input);
        let name = name.display();
        tokio::select! {
            opened = opening => opened.unwrap_or_else(|panic| Err(CliError::new(Exit::Input, format!("{name}: {panic}")))),
            () = self.interrupted.cancelled() => Err(interrupted(&name.to_string())),
        }
    }

    /// What each line is called; nobody, where there is only one.
    fn speakers(&self, name: &str, lines: usize) -> Result<Vec<String>, CliError> {
        let given = self.speakers.len();
        match (self.reading.channels, given, lines) {
            (Channels::Split, 0, 2) => Ok(["agent", "customer"].map(str::to_owned).into()),
            (Channels::Split, 0, _) => Ok((1..=lines).map(|channel| format!("channel {channel}")).collect()),
            (Channels::Split, ..) if given != lines => Err(CliError::new(
                Exit::Setup,
                format!("--speakers: {given} names, but {name} has {lines} channels"),
            )),
            _ => Ok(self.speakers.clone()),
        }
    }

    /// Carries one line through a session; its events go to `transcript`, and `None` when there are no more.
    async fn session(
        &self,
        line: usize,
        audio: mpsc::Receiver<Feed>,
        transcript: mpsc::Sender<(usize, Option<TranscriptEvent>)>,
        progress: &Progress,
    ) -> Result<(), SessionError> {
        let (feed, session_audio) = mpsc::channel(1);
        let (events, mut told) = mpsc::channel(1);
        let mut settings = self.settings.clone();
        settings.seed = settings.seed.wrapping_add(line as u64);
        let session = session::run(&self.connector, &self.connection.tokens, settings, session_audio, events);
        let telling = async {
            while let Some(event) = told.recv().await {
                // Without a receiver the output has failed, which ends all.
                let _ = transcript.send((line, Some(event))).await;
            }
            let _ = transcript.send((line, None)).await;
        };
        let (ended, (), ()) = tokio::join!(session, telling, self.forward(audio, feed, progress));
        ended.result
    }

    /// Carries audio from the worker to the session, at the pace asked for. The user's interruption is the end of the
    /// audio: what was said until then is still recognised.
    async fn forward(
        &self,
        mut audio: mpsc::Receiver<Feed>,
        session: mpsc::Sender<Feed>,
        progress: &Progress,
    ) {
        let pacer = Pacer::new(self.pace, SAMPLE_RATE);
        let carrying = async {
            // Without a feed the worker died; the closed channel tells the session.
            while let Some(feed) = audio.recv().await {
                pacer.wait(&feed).await;
                let end = feed == Feed::End;
                if session.send(feed).await.is_err() || end {
                    return;
                }
            }
        };
        tokio::select! {
            () = carrying => {}
            () = self.interrupted.cancelled() => {
                progress.interrupted();
                let _ = session.send(Feed::End).await;
            }
        }
    }
}

fn interrupted(name: &str) -> CliError {
    CliError::new(Exit::Interrupted, format!("{name}: interrupted"))
}

fn show(
    event: TranscriptEvent,
    speaker: Option<&str>,
    output: &mut Output,
    progress: &Progress,
) -> Result<(), WriterError> {
    match event {
        TranscriptEvent::Partial { text, range, .. } => progress.guess(&text, range.end),
        TranscriptEvent::Final(segment) => {
            progress.around(|| output.segment(&segment, speaker))?;
            progress.reach(segment.range.end);
        }
        TranscriptEvent::Gap { range } => progress.around(|| output.gap(range, speaker))?,
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

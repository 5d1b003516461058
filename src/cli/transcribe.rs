//! `voxline transcribe`: recordings in, text out.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use futures::{FutureExt, TryFutureExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::exit_code::{CliError, Exit};
use super::progress::Progress;
use super::service::{Connection, Need};
use super::{Common, complain};
use crate::audio::Feed;
use crate::pipeline::{self, Pipeline};
use crate::session::{self, Settings};
use crate::source::Source;
use crate::transcript::{Format, TranscriptEvent, Writer, WriterError};
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
    /// Write to a file, or into a directory a file for each recording, instead of standard output
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
    let target = Target::new(output, format, inputs.len())?;
    let config = common.load(language)?;
    let sources = check(&inputs);
    if sources.iter().all(Result::is_err) {
        // Nothing to do: don't start a service for it.
        return Ok(report_all(sources.into_iter().filter_map(Result::err)));
    }
    let connection = Connection::open(&config, Need::Recognition).await?;
    let mut settings = Settings::new(SAMPLE_RATE);
    settings.language = config.language;
    settings.partials = !no_partials;
    settings.seed = seed();
    let job = Job {
        connector: WebSocketConnector::new(connection.endpoint.clone())?,
        connection: &connection,
        settings,
        target,
        interrupted: interruption(),
    };
    let mut worst = Exit::Done;
    for source in sources {
        let ended = match source {
            Ok(source) => job.transcribe(source).await,
            Err(error) => Err(error),
        };
        let exit = ended.unwrap_or_else(|error| {
            complain(&error);
            error.exit
        });
        if worst == Exit::Done {
            worst = exit;
        }
        if exit == Exit::Interrupted {
            worst = exit;
            break;
        }
    }
    drop(job);
    connection.close().await;
    Ok(worst)
}

/// Opens every recording, so that a misspelt name is told before an hour's work on the others.
fn check(inputs: &[PathBuf]) -> Vec<Result<Source, CliError>> {
    let open = |path: &PathBuf| match path.as_os_str() == "-" {
        true => Ok(Source::stdin()),
        false => Source::open(path).map_err(CliError::from),
    };
    inputs.iter().map(open).collect()
}

/// Tells the user each error; the exit code is the first one's.
fn report_all(errors: impl Iterator<Item = CliError>) -> Exit {
    let mut first = None;
    for error in errors {
        complain(&error);
        first.get_or_insert(error.exit);
    }
    first.unwrap_or(Exit::Done)
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
    async fn transcribe(&self, source: Source) -> Result<Exit, CliError> {
        let name = source.name().to_owned();
        // Probing reads, and reading may block.
        let opened =
            tokio::task::spawn_blocking(|| Pipeline::open(source, pipeline::Options::default())).await;
        let pipeline = opened.map_err(|panic| CliError::new(Exit::Input, format!("{name}: {panic}")))??;
        let info = pipeline.info();
        let duration =
            info.frames.map(|frames| Duration::from_secs_f64(frames as f64 / f64::from(info.sample_rate)));
        let mut writer = self.target.open(&name)?;
        let progress = Progress::new(&name, SAMPLE_RATE, duration);

        let (audio, worker) = pipeline.start();
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
            writing.map_err(|error| self.target.error(&name, &error)),
            forwarding.map(Ok),
        )?;
        drop(progress);
        session?;
        if self.interrupted.is_cancelled() {
            return Err(CliError::new(Exit::Interrupted, format!("{name}: interrupted")));
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
    loop {
        let feed = tokio::select! {
            feed = audio.recv() => feed,
            () = interrupted.cancelled() => {
                progress.interrupted();
                Some(Feed::End)
            }
        };
        // Without a feed the worker died; the closed channel tells the session.
        let Some(feed) = feed else { return };
        let end = feed == Feed::End;
        if session.send(feed).await.is_err() || end {
            return;
        }
    }
}

fn show(
    event: TranscriptEvent,
    writer: &mut Writer<Box<dyn Write + Send>>,
    progress: &Progress,
) -> Result<(), WriterError> {
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

/// Where transcripts go.
struct Target {
    format: Format,
    place: Place,
}

enum Place {
    Stdout,
    /// One file for all recordings.
    File(PathBuf),
    /// A file for each.
    Directory(PathBuf),
}

impl Target {
    fn new(output: Option<PathBuf>, format: Format, inputs: usize) -> Result<Target, CliError> {
        let place = match output {
            None => Place::Stdout,
            Some(path) if path.is_dir() => Place::Directory(path),
            Some(path) => Place::File(path),
        };
        let one_timeline = matches!(format, Format::Srt | Format::WebVtt);
        if inputs > 1 && one_timeline && !matches!(place, Place::Directory(_)) {
            let expected = "several recordings don't fit on one timeline: name a directory with --output";
            return Err(CliError::new(Exit::Setup, expected));
        }
        if let Place::File(path) = &place {
            // Emptied once, so that each recording can append.
            File::create(path).map_err(|error| CliError::output(&path.display().to_string(), &error))?;
        }
        Ok(Target { format, place })
    }

    /// The writer for the recording called `name`.
    fn open(&self, name: &str) -> Result<Writer<Box<dyn Write + Send>>, CliError> {
        let out: Box<dyn Write + Send> = match &self.place {
            Place::Stdout => Box::new(io::stdout()),
            Place::File(path) => {
                let file = File::options().append(true).open(path);
                Box::new(file.map_err(|error| CliError::output(&path.display().to_string(), &error))?)
            }
            Place::Directory(_) => {
                let path = self.path(name);
                Box::new(
                    File::create(&path)
                        .map_err(|error| CliError::output(&path.display().to_string(), &error))?,
                )
            }
        };
        Ok(Writer::new(self.format, SAMPLE_RATE, out))
    }

    /// The file for the recording called `name`: its own name with the format's extension.
    fn path(&self, name: &str) -> PathBuf {
        let extension = match self.format {
            Format::Text => "txt",
            format => format.name(),
        };
        match &self.place {
            Place::Stdout => PathBuf::from("standard output"),
            Place::File(path) => path.clone(),
            Place::Directory(directory) => {
                let stem = Path::new(name).file_stem().unwrap_or_default();
                directory.join(stem).with_extension(extension)
            }
        }
    }

    fn error(&self, name: &str, error: &WriterError) -> CliError {
        CliError::new(Exit::Output, format!("{}: {error}", self.path(name).display()))
    }
}

/// Cancelled when the user interrupts for the first time; the second time ends the process.
fn interruption() -> CancellationToken {
    let interrupted = CancellationToken::new();
    let signalled = interrupted.clone();
    watch_interrupts(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            if signalled.is_cancelled() {
                std::process::exit(Exit::Interrupted as i32);
            }
            signalled.cancel();
        }
    });
    interrupted
}

#[expect(clippy::disallowed_methods, reason = "listens for signals until the process ends")]
fn watch_interrupts(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

/// Different for each run, so that clients that fail together don't retry together.
#[expect(clippy::disallowed_methods, reason = "this is where a session's jitter comes from")]
fn seed() -> u64 {
    let mut bytes = [0; 8];
    // Without a generator the jitter is merely the same as elsewhere.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

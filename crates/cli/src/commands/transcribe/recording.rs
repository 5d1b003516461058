//! Transcription of one recording: its channel streams, their sessions, and one transcript.

use std::io::{self, BufRead};
use std::path::Path;

use futures::future::join_all;
use futures::{FutureExt, TryFutureExt};
use tokio::sync::mpsc;

use super::channel_stream::{ChannelStream, Outcome};
use super::job::{Job, Verdict};
use super::spooling::{Spooling, Work};
use crate::exit_code::{CliError, Exit};
use crate::input::{self, Reading};
use crate::progress::Progress;
use crate::signals::Stop;
use crate::target::Output;
use voxline::audio::Feed;
use voxline::decode::{Channels, DecodeError};
use voxline::pipeline::{self, Pipeline, PipelineError};
use voxline::spool::Opened;
use voxline::transcript::{Merge, TranscriptEvent, WriterError};

/// Number of events that may wait for a slow output.
const EVENTS: usize = 64;

/// An opened recording, with the spools of an earlier run.
struct Prepared {
    /// `None` if the spools contain all audio.
    pipeline: Option<Pipeline>,
    /// Spool of each channel stream, if spooling is on.
    spools: Vec<Opened>,
    live: bool,
}

impl Job<'_> {
    pub(super) async fn transcribe(&self, input: &Path) -> Result<Exit, CliError> {
        let Prepared { pipeline, spools, live } = self.open(input).await?;
        let name = match &pipeline {
            Some(pipeline) => pipeline.name().to_owned(),
            None => input::name(input).display().to_string(),
        };
        let duration = pipeline.as_ref().and_then(|pipeline| pipeline.info().duration());
        let streams = pipeline.as_ref().map_or(spools.len(), Pipeline::streams);
        let speakers = self.speakers(&name, streams)?;
        let mut output = self.target.open(input)?;
        let progress = Progress::new(&name, self.settings.sample_rate, duration);

        let (audio, verdict) = start(&name, pipeline);
        // A recording from a URL may download completely the next time.
        let retry = input::is_url(input).then(|| verdict.clone());
        let mut audio = audio.into_iter();
        let mut spools = spools.into_iter();
        let streams = (0..streams).map(|number| ChannelStream {
            number,
            audio: audio.next(),
            spool: spools.next(),
            live,
            retry: retry.clone(),
        });
        let (events, mut transcript) = mpsc::channel(EVENTS);
        let mut merge = Merge::new(streams.len());
        let sessions = join_all(streams.map(|stream| self.session(stream, events.clone(), &progress)));
        // The last channel stream to end closes the channel.
        drop(events);
        let writing = async {
            let mut spoken = false;
            while let Some((stream, event)) = transcript.recv().await {
                for (stream, event) in merge.push(stream, event) {
                    spoken |= matches!(&event, TranscriptEvent::Final(segment) if !segment.text.is_empty());
                    show(event, speakers.get(stream).map(String::as_str), &mut output, &progress)?;
                }
            }
            output.finish()?;
            Ok(spoken)
        };
        // A failed output ends the work: the sessions are dropped, which ends the worker.
        let (sessions, spoken) = tokio::try_join!(
            sessions.map(Ok),
            writing.map_err(|error: WriterError| self.target.failed(input, &error)),
        )?;
        drop(progress);
        if let Some(form) = self.ledger {
            for (stream, session) in sessions.iter().enumerate() {
                form.show(&name, speakers.get(stream).map(String::as_str), &session.ledger);
            }
        }
        let complete = self.put_away(input, sessions)?;
        if self.interrupted.is_cancelled() {
            return Err(self.stopped_at(&name));
        }
        verdict.await.map_err(|error| match complete {
            true => error,
            false => error.with("; run the same command again to try the rest"),
        })?;
        match spoken {
            true => Ok(Exit::Done),
            false => Err(CliError::new(Exit::Nothing, format!("{name}: no speech recognised"))),
        }
    }

    /// Returns the error of an interrupted recording.
    fn stopped_at(&self, name: &str) -> CliError {
        self.stopped.get().copied().unwrap_or(Stop::Interrupt).error(Some(name))
    }

    /// Opens a recording on a blocking thread, since probing reads, and a read may block.
    async fn open(&self, input: &Path) -> Result<Prepared, CliError> {
        let (reading, path) = (self.reading, input.to_owned());
        let spooled = match &self.spooling {
            Some(spooling) => {
                let work = Work::of(input, reading, self.settings.request.language.as_deref())?;
                Some((spooling.clone(), work))
            }
            None => None,
        };
        let opening = tokio::task::spawn_blocking(move || match spooled {
            Some((spooling, work)) => prepare(&path, reading, &spooling, &work),
            None => Ok(Prepared { pipeline: Some(read(&path, reading)??), spools: Vec::new(), live: false }),
        });
        let name = input::name(input);
        let name = name.display();
        tokio::select! {
            opened = opening => opened.unwrap_or_else(|panic| Err(CliError::new(Exit::Input, format!("{name}: {panic}")))),
            () = self.interrupted.cancelled() => Err(self.stopped_at(&name.to_string())),
        }
    }

    /// Returns the speaker of each channel stream; empty if there is only one.
    fn speakers(&self, name: &str, streams: usize) -> Result<Vec<String>, CliError> {
        let given = self.speakers.len();
        match (self.reading.channels, given, streams) {
            (Channels::Split, 0, 2) => Ok(["agent", "customer"].map(str::to_owned).into()),
            (Channels::Split, 0, _) => {
                Ok((1..=streams).map(|channel| format!("channel {channel}")).collect())
            }
            (Channels::Split, ..) if given != streams => Err(CliError::new(
                Exit::Setup,
                format!("--speakers: {given} names, but {name} has {streams} channels"),
            )),
            _ => Ok(self.speakers.clone()),
        }
    }

    /// Removes the spools after the transcript is written. The spools stay if a session failed, or if audio
    /// is missing other than by the user's wish. Returns whether all spools were removed.
    fn put_away(&self, input: &Path, sessions: Vec<Outcome>) -> Result<bool, CliError> {
        let kept: Vec<_> = sessions
            .into_iter()
            .map(|session| session.result.map(|()| session.spool))
            .collect::<Result<_, _>>()?;
        let Some(spooling) = &self.spooling else { return Ok(true) };
        if !kept.iter().flatten().all(|kept| kept.finished) {
            return Ok(false);
        }
        if spooling.is_durable() {
            self.target.sync(input)?;
        }
        kept.into_iter().flatten().try_for_each(|kept| kept.spool.remove())?;
        Ok(true)
    }
}

fn read(input: &Path, reading: Reading) -> Result<Result<Pipeline, PipelineError>, CliError> {
    let options = pipeline::Options { channels: reading.channels, ..pipeline::Options::default() };
    Ok(Pipeline::open(reading.open(input)?, options))
}

/// Opens the spools of `work` and, unless they contain all audio, the recording.
fn prepare(input: &Path, reading: Reading, spooling: &Spooling, work: &Work) -> Result<Prepared, CliError> {
    let mut spools = spooling.open_existing(work)?;
    let live = work.live;
    let left = !spools.is_empty();
    if left && spools.iter().all(|spool| spool.recovered.ended) {
        return Ok(Prepared { pipeline: None, spools, live });
    }
    let opened = match left && work.is_stdin() && stdin_has_ended() {
        true => None,
        false => match read(input, reading)? {
            // The recording has a header, and no audio.
            Err(PipelineError::Decode(DecodeError::NoAudio { .. })) if left && live => None,
            opened => Some(opened?),
        },
    };
    let Some(pipeline) = opened else {
        // The source has no further audio: the spools are complete.
        spools.iter_mut().try_for_each(|spool| spool.writer.end())?;
        return Ok(Prepared { pipeline: None, spools, live });
    };
    let streams = pipeline.streams();
    if spools.len() > streams {
        let name = pipeline.name();
        let reason = format!("{name}: has {streams} channels, but its spools are of {}", spools.len());
        return Err(CliError::new(Exit::Setup, reason));
    }
    for stream in spools.len()..streams {
        spools.push(spooling.open(work, stream)?);
    }
    Ok(Prepared { pipeline: Some(pipeline), spools, live })
}

/// Returns whether standard input is at its end. Waits for data or the end, and consumes nothing.
fn stdin_has_ended() -> bool {
    io::stdin().lock().fill_buf().is_ok_and(<[u8]>::is_empty)
}

/// Starts reading the recording, if there is anything to read.
fn start(name: &str, pipeline: Option<Pipeline>) -> (Vec<mpsc::Receiver<Feed>>, Verdict) {
    let Some(pipeline) = pipeline else { return (Vec::new(), async { Ok(()) }.boxed().shared()) };
    let (streams, worker) = pipeline.start();
    let name = name.to_owned();
    let joined = tokio::task::spawn_blocking(|| worker.join());
    let verdict = async move {
        match joined.await {
            Ok(joined) => joined.map(drop).map_err(CliError::from),
            Err(panic) => Err(CliError::new(Exit::Input, format!("{name}: {panic}"))),
        }
    };
    (streams, verdict.boxed().shared())
}

fn show(
    event: TranscriptEvent,
    speaker: Option<&str>,
    output: &mut Output,
    progress: &Progress,
) -> Result<(), WriterError> {
    match event {
        TranscriptEvent::Partial { text, range, .. } => progress.partial(&text, range.end),
        TranscriptEvent::Final(segment) => {
            progress.around(|| output.segment(&segment, speaker))?;
            progress.reach(segment.range.end);
        }
        TranscriptEvent::Gap { range } => progress.around(|| output.gap(range, speaker))?,
        _ => {}
    }
    Ok(())
}

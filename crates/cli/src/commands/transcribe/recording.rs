//! Transcription of one recording: its sessions, and their transcript.

use std::path::Path;

use super::job::{Job, SAMPLE_RATE, SessionOptions};
use super::spooling::SpooledRecording;
use crate::exit_code::{CliError, Exit};
use crate::input;
use crate::progress::Progress;
use crate::signals::Stop;
use crate::target::Output;
use voxline::client::{ChannelError, ChannelTranscript, OpenedRecording, TranscriptError};
use voxline::decode::{Channels, StreamInfo};
use voxline::transcript::{TranscriptEvent, WriterError};

/// Outcome of the sessions of a recording.
#[derive(Default)]
struct Outcome {
    /// `true` if there is any text.
    spoken: bool,
    /// Error of the first channel whose session failed.
    failed: Option<ChannelError>,
    /// Error that ended the reading of the recording early.
    unread: Option<CliError>,
}

impl Outcome {
    fn take_error(&mut self, error: ChannelError) {
        if let TranscriptError::Source(error) = error.error {
            self.unread = Some(error.into());
        } else if self.failed.as_ref().is_none_or(|failed| error.channel < failed.channel) {
            self.failed = Some(error);
        }
    }
}

impl Job {
    pub(super) async fn transcribe(&self, input: &Path) -> Result<Exit, CliError> {
        let spooled = match &self.spooling {
            Some(_) => {
                let SessionOptions { language, hints, .. } = &self.session;
                Some(SpooledRecording::of(input, self.reading, language.as_deref(), hints.task())?)
            }
            None => None,
        };
        let opened = self.open(input, spooled.as_ref()).await?;
        let name = opened.name().to_owned();
        let speakers = self.speakers(&name, opened.channels())?;
        let output = self.target.open(input)?;
        let duration = opened.info().and_then(StreamInfo::duration);
        let progress = Progress::new(&self.displays, &name, SAMPLE_RATE, duration);

        // A failed output ends the work: the dropped transcript ends its sessions.
        let mut transcript = opened.start_by_channel();
        let outcome = self.write(&mut transcript, &speakers, output, &progress).await;
        let outcome = outcome.map_err(|error| self.target.failed(input, &error))?;
        drop(progress);
        self.show_ledgers(&name, &speakers, &transcript);
        if let Some(error) = outcome.failed {
            return Err(self.session_error(error, spooled.as_ref()));
        }
        self.remove_spools(input, &mut transcript)?;
        if self.interrupted.is_cancelled() {
            return Err(self.stopped_at(&name));
        }
        match outcome.unread {
            Some(error) if transcript.is_resumable() => {
                Err(error.with("; run the same command again to try the rest"))
            }
            Some(error) => Err(error),
            None if outcome.spoken => Ok(Exit::Done),
            None => Err(CliError::new(Exit::Nothing, format!("{name}: no speech recognised"))),
        }
    }

    /// Opens a recording on a blocking thread, since probing reads, and a read may block.
    async fn open(
        &self,
        input: &Path,
        spooled: Option<&SpooledRecording>,
    ) -> Result<OpenedRecording, CliError> {
        let transcription = self.transcription(input, spooled);
        let opening = tokio::task::spawn_blocking(|| transcription.open());
        let name = input::name(input);
        let name = name.display();
        tokio::select! {
            opened = opening => match opened {
                Ok(opened) => Ok(opened?),
                Err(panic) => Err(CliError::new(Exit::Input, format!("{name}: {panic}"))),
            },
            () = self.interrupted.cancelled() => Err(self.stopped_at(&name.to_string())),
        }
    }

    /// Writes the transcript to its end. An interruption ends the audio; speech up to that point is still
    /// recognised.
    async fn write(
        &self,
        transcript: &mut ChannelTranscript,
        speakers: &[String],
        mut output: Output,
        progress: &Progress,
    ) -> Result<Outcome, WriterError> {
        let mut outcome = Outcome::default();
        let mut stopped = false;
        loop {
            let event = tokio::select! {
                event = transcript.next() => event,
                () = self.interrupted.cancelled(), if !stopped => {
                    stopped = true;
                    progress.interrupted();
                    transcript.stop();
                    continue;
                }
            };
            match event {
                Some(Ok((channel, event))) => {
                    outcome.spoken |= event.final_text().is_some();
                    show(event, speakers.get(channel).map(String::as_str), &mut output, progress)?;
                }
                Some(Err(error)) => outcome.take_error(error),
                None => break,
            }
        }
        output.finish()?;
        Ok(outcome)
    }

    /// Reports the ledger of each session, if requested.
    fn show_ledgers(&self, name: &str, speakers: &[String], transcript: &ChannelTranscript) {
        let Some(form) = self.ledger else { return };
        for (channel, ledger) in transcript.ledgers().iter().enumerate() {
            form.show(name, speakers.get(channel).map(String::as_str), ledger);
        }
    }

    /// Returns the error of an interrupted recording.
    fn stopped_at(&self, name: &str) -> CliError {
        self.stopped.get().copied().unwrap_or(Stop::Interrupt).error(Some(name))
    }

    /// Returns the error of a failed session, which says how to continue it if it has a spool.
    fn session_error(&self, error: ChannelError, spooled: Option<&SpooledRecording>) -> CliError {
        let ChannelError { channel, error, .. } = error;
        let error = CliError::from(error);
        let (Some(spooling), Some(spooled)) = (&self.spooling, spooled) else { return error };
        match error.exit {
            Exit::Output => error.with("; run the same command again to continue"),
            Exit::Peer | Exit::Limit | Exit::Authentication => {
                let path = spooling.path(spooled, channel);
                let path = path.display();
                error.with(&format!("; the rest is in {path}: run the same command again to continue"))
            }
            _ => error,
        }
    }

    /// Returns the speaker of each channel; empty if there is only one.
    fn speakers(&self, name: &str, channels: usize) -> Result<Vec<String>, CliError> {
        let given = self.speakers.len();
        match (self.reading.channels, given, channels) {
            (Channels::Split, 0, 2) => Ok(["agent", "customer"].map(str::to_owned).into()),
            (Channels::Split, 0, _) => {
                Ok((1..=channels).map(|channel| format!("channel {channel}")).collect())
            }
            (Channels::Split, ..) if given != channels => Err(CliError::new(
                Exit::Setup,
                format!("--speakers: {given} names, but {name} has {channels} channels"),
            )),
            _ => Ok(self.speakers.clone()),
        }
    }

    /// Removes the spools of a transcript that is complete and written. The spools stay if audio is missing
    /// other than by the user's wish.
    fn remove_spools(&self, input: &Path, transcript: &mut ChannelTranscript) -> Result<(), CliError> {
        let Some(spooling) = &self.spooling else { return Ok(()) };
        if spooling.is_durable() && !transcript.is_resumable() {
            self.target.sync(input)?;
        }
        Ok(transcript.remove_spools()?)
    }
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

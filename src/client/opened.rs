//! A recording whose format was recognised, and the spools of its sessions.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::input::Input;
use super::reading::Reading;
use super::recording::{Recorded, Recording};
use super::spool_file::{SpoolContext, SpoolFile, SpoolFiles};
use super::{ChannelTranscript, Service, StartError, Transcript, Transcription};
use crate::decode::{Channels, DecodeError, StreamInfo};
use crate::pace::{Pace, Pacer};
use crate::pipeline::{self, Pipeline, PipelineError};
use crate::protocol::check_hints;
use crate::session::Settings;
use crate::spool::{Opened, Repeatability, SpoolError};

/// A recording that was opened for its transcription; created by
/// [`Transcription::open`](super::Transcription::open).
///
/// Its spools are open until it is dropped, or its transcript is.
#[derive(Debug)]
#[must_use = "nothing is transcribed before it is started"]
pub struct OpenedRecording {
    service: Arc<Service>,
    settings: Settings,
    pace: Pace,
    audio: Audio,
}

/// The audio of a recording, from its source and its spools.
#[derive(Debug)]
struct Audio {
    name: String,
    /// `None` if the spools have all audio.
    pipeline: Option<Pipeline>,
    /// The spool of each channel stream, with spooling.
    spools: Vec<Opened>,
    repeats: Repeatability,
    /// `true` if a source that can't be read to its end may be complete in a later process.
    may_be_complete_later: bool,
}

impl OpenedRecording {
    /// Opens the recording of a transcription, and its spools.
    pub(super) fn open(transcription: Transcription<Recorded>) -> Result<OpenedRecording, StartError> {
        let Transcription { service, settings, audio } = transcription;
        check_hints(settings.request.prompt.as_deref(), &settings.request.keywords)?;
        let Recorded { recording, channels, pace, spools } = audio;
        let (channels, sample_rate) = (channels.unwrap_or(Channels::Mix), settings.sample_rate);
        let options = pipeline::Options { channels, sample_rate, ..pipeline::Options::default() };
        let audio = match spools {
            Some(files) => {
                let source = &recording.described(channels);
                let session = SpoolContext { settings: &settings, service: &service.endpoint, source };
                Spooling { files: &files, session, options }.open(recording)?
            }
            None => Audio::unspooled(recording, options)?,
        };
        Ok(OpenedRecording { service, settings, pace, audio })
    }

    /// Returns the name of the recording in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.audio.name
    }

    /// Returns the properties of the source, such as its duration. `None` if the spools of an earlier process
    /// have all audio, so that the source was not opened.
    #[must_use]
    pub fn info(&self) -> Option<&StreamInfo> {
        self.audio.pipeline.as_ref().map(Pipeline::info)
    }

    /// Returns the number of transcripts: one, or with [`Channels::Split`] one per channel.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.audio.channels()
    }

    /// Starts the session of a recording that has one transcript.
    ///
    /// # Errors
    /// Returns [`StartError::SplitChannels`] if there are [several](OpenedRecording::channels).
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    pub fn start(self) -> Result<Transcript, StartError> {
        if self.channels() > 1 {
            return Err(StartError::SplitChannels);
        }
        Ok(self.start_sessions().remove(0))
    }

    /// Starts a session for each channel, and merges their transcripts by time.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    #[must_use]
    pub fn start_by_channel(self) -> ChannelTranscript {
        ChannelTranscript::new(self.start_sessions())
    }

    /// Starts a session for each channel stream.
    fn start_sessions(self) -> Vec<Transcript> {
        let OpenedRecording { service, settings, pace, audio } = self;
        let channels = audio.channels();
        let Audio { pipeline, spools, repeats, may_be_complete_later, .. } = audio;
        let (streams, worker) = match pipeline {
            Some(pipeline) => {
                let (streams, worker) = pipeline.start();
                (streams, Some(worker))
            }
            // The channels are closed: there is no more audio.
            None => ((0..channels).map(|_| mpsc::channel(1).1).collect(), None),
        };
        let reading = Reading::by(worker);
        let mut spools = spools.into_iter();
        let transcripts = streams.into_iter().zip(0..).map(|(audio, number)| {
            let mut settings = settings.clone();
            settings.seed = settings.seed.wrapping_add(number);
            let pacer = Pacer::new(pace, settings.sample_rate);
            let spool = spools.next().map(|opened| (opened, repeats));
            let pacer = match &spool {
                Some((Opened { recovered, .. }, Repeatability::Repeatable)) => {
                    pacer.starting_at(recovered.accepted)
                }
                _ => pacer,
            };
            let is_live = spool.is_some() && repeats == Repeatability::Live;
            let reading = Some(reading.clone());
            let input = Input { audio, pacer, is_live, reading, may_be_complete_later };
            Transcript::start(service.clone(), settings, spool, input)
        });
        transcripts.collect()
    }
}

impl Audio {
    /// Opens a recording whose sessions have no spool.
    fn unspooled(recording: Recording, options: pipeline::Options) -> Result<Audio, StartError> {
        let pipeline = Pipeline::open(recording.open()?, options)?;
        Ok(Audio {
            name: pipeline.name().to_owned(),
            pipeline: Some(pipeline),
            spools: Vec::new(),
            // Without a spool neither matters.
            repeats: Repeatability::Live,
            may_be_complete_later: false,
        })
    }

    fn channels(&self) -> usize {
        self.pipeline.as_ref().map_or(self.spools.len(), Pipeline::streams)
    }
}

/// The spools of a recording's sessions, to be opened.
struct Spooling<'a> {
    files: &'a SpoolFiles,
    session: SpoolContext<'a>,
    options: pipeline::Options,
}

impl Spooling<'_> {
    /// Opens the spools that an earlier process left and, unless they have all audio, the recording.
    fn open(&self, recording: Recording) -> Result<Audio, StartError> {
        let name = recording.name().to_owned();
        let spools = self.open_existing()?;
        let left = !spools.is_empty();
        if left && spools.iter().all(|spool| spool.recovered.ended) {
            return Ok(self.without_source(name, spools));
        }
        let source = recording.open()?;
        let usual = if source.is_repeatable() { Repeatability::Repeatable } else { Repeatability::Live };
        let repeats = self.repeatability().unwrap_or(usual);
        // A download that broke may be complete the next time; a damaged file stays damaged.
        let may_be_complete_later = repeats == Repeatability::Repeatable && !source.is_seekable();
        let pipeline = match Pipeline::open(source, self.options) {
            // A live source that has ended meanwhile: the spools have all there was.
            Err(PipelineError::Decode(DecodeError::NoAudio { .. }))
                if left && repeats == Repeatability::Live =>
            {
                return self.ended(name, spools);
            }
            opened => opened?,
        };
        let name = pipeline.name().to_owned();
        let spools = self.complete(spools, &name, pipeline.streams())?;
        Ok(Audio { name, pipeline: Some(pipeline), spools, repeats, may_be_complete_later })
    }

    /// Opens the spools that an earlier process left, up to the first that is missing.
    fn open_existing(&self) -> Result<Vec<Opened>, SpoolError> {
        let most = if self.is_split() { usize::MAX } else { 1 };
        let files = (0..most).map(|channel| self.file(channel));
        files.take_while(SpoolFile::exists).map(|file| file.open(&self.session)).collect()
    }

    /// Creates the spools that are missing for this number of channels.
    fn complete(
        &self,
        mut spools: Vec<Opened>,
        source_name: &str,
        channels: usize,
    ) -> Result<Vec<Opened>, StartError> {
        if spools.len() > channels {
            let (source_name, spools) = (source_name.to_owned(), spools.len());
            return Err(StartError::Channels { source_name, channels, spools });
        }
        for channel in spools.len()..channels {
            spools.push(self.file(channel).open(&self.session)?);
        }
        Ok(spools)
    }

    /// Returns the audio of spools whose live source has ended.
    fn ended(&self, name: String, mut spools: Vec<Opened>) -> Result<Audio, StartError> {
        spools.iter_mut().try_for_each(|spool| spool.writer.end())?;
        Ok(self.without_source(name, spools))
    }

    /// Returns the audio of spools that have all of it.
    fn without_source(&self, name: String, spools: Vec<Opened>) -> Audio {
        let repeats = self.repeatability().unwrap_or(Repeatability::Live);
        Audio { name, pipeline: None, spools, repeats, may_be_complete_later: false }
    }

    fn file(&self, channel: usize) -> SpoolFile {
        self.files.file(channel, self.is_split())
    }

    fn repeatability(&self) -> Option<Repeatability> {
        self.file(0).given_repeatability()
    }

    fn is_split(&self) -> bool {
        self.options.channels == Channels::Split
    }
}

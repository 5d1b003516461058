//! Transcription of a recording.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::reading::Reading;
use super::spool_file::{Channel, Session, SpoolFile};
use super::{ChannelTranscript, Service, StartError, Transcript};
use crate::audio::Feed;
use crate::decode::{Channels, DecodeError};
use crate::net::Endpoint;
use crate::pace::{Pace, Pacer};
use crate::pipeline::{self, Pipeline, PipelineError};
use crate::protocol::Latency;
use crate::session::Settings;
use crate::source::Source;
use crate::spool::{Opened, Repeatability};

/// Slowest pace, in multiples of real time, as in the text form of [`Pace`].
const SLOWEST: f64 = 0.01;

/// A recording to be transcribed, with its options; created by
/// [`Client::transcribe`](super::Client::transcribe).
#[derive(Debug)]
#[must_use = "nothing is transcribed before it is started"]
pub struct Transcription {
    service: Arc<Service>,
    source: Source,
    settings: Settings,
    channels: Channels,
    pace: Pace,
    spool: Option<SpoolFile>,
}

impl Transcription {
    pub(super) fn new(service: Arc<Service>, source: Source) -> Transcription {
        let mut settings = Settings::new(pipeline::Options::default().sample_rate);
        settings.request.latency = Latency::Relaxed;
        Transcription { service, source, settings, channels: Channels::Mix, pace: Pace::Max, spool: None }
    }

    /// Sets the language spoken, as a BCP 47 tag (`en`, `ru-RU`). By default the service detects it.
    pub fn language(mut self, language: impl Into<String>) -> Transcription {
        self.settings.request.language = Some(language.into());
        self
    }

    /// Sets whether partial results are wanted: yes, by default.
    pub fn partials(mut self, wanted: bool) -> Transcription {
        self.settings.request.partials = wanted;
        self
    }

    /// Sets the channels of the recording that [`start`](Transcription::start) transcribes: all channels
    /// mixed, by default and for [`Channels::Split`].
    /// [`start_by_channel`](Transcription::start_by_channel) ignores this setting.
    pub fn channels(mut self, channels: Channels) -> Transcription {
        self.channels = channels;
        self
    }

    /// Sets the pace at which the recording is sent: as fast as the service takes it, by default.
    ///
    /// # Panics
    /// Panics if the pace is below 0.01 times real time.
    pub fn pace(mut self, pace: Pace) -> Transcription {
        let in_range = match pace {
            Pace::Max => true,
            Pace::Times(times) => times >= SLOWEST,
        };
        assert!(in_range, "a pace of {pace}, expected at least {SLOWEST}");
        self.pace = pace;
        self
    }

    /// Sets how long to retry while the service is unreachable. The default is 5 s for the first connection,
    /// and 120 s once there was one.
    pub fn patience(mut self, patience: Duration) -> Transcription {
        (self.settings.timeouts.first_contact, self.settings.timeouts.give_up) = (patience, patience);
        self
    }

    /// Keeps the session in this file, so that a later process resumes it after a crash.
    pub fn spool(self, file: SpoolFile) -> Transcription {
        Transcription { spool: Some(file), ..self }
    }

    /// Changes any other setting of the session, such as the size of its replay buffer.
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Transcription {
        change(&mut self.settings);
        self
    }

    /// Recognises the format of the source, and starts the session.
    ///
    /// Blocks while the head of the source is read. For a source that may be slow, and for
    /// `Source::url`, call this method in `tokio::task::spawn_blocking`.
    ///
    /// # Errors
    /// Returns [`StartError`] if the source holds no audio that can be decoded, or if the spool can't be
    /// opened.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    pub fn start(mut self) -> Result<Transcript, StartError> {
        if self.channels == Channels::Split {
            self.channels = Channels::Mix;
        }
        let mut transcripts = self.start_sessions()?;
        Ok(transcripts.remove(0))
    }

    /// Starts a session for each channel of the source, and merges their transcripts by time. Blocks like
    /// [`start`](Transcription::start).
    ///
    /// # Errors
    /// Returns the errors of [`start`](Transcription::start), and [`StartError::Channels`] if an earlier
    /// process left spools of more channels.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    pub fn start_by_channel(mut self) -> Result<ChannelTranscript, StartError> {
        self.channels = Channels::Split;
        Ok(ChannelTranscript::new(self.start_sessions()?))
    }

    /// Starts a session for each channel stream.
    fn start_sessions(self) -> Result<Vec<Transcript>, StartError> {
        let Transcription { service, source, settings, channels, pace, spool } = self;
        let options =
            pipeline::Options { channels, sample_rate: settings.sample_rate, ..pipeline::Options::default() };
        let spooling = match spool {
            Some(file) => {
                let repeats = file.repeats(source.is_repeatable());
                // A download that broke may be complete the next time; a damaged file stays damaged.
                let may_be_complete_later = repeats == Repeatability::Repeatable && !source.is_seekable();
                let (service, settings) = (&service.endpoint, &settings);
                Some(Spooling { file, repeats, may_be_complete_later, service, settings })
            }
            None => None,
        };
        let (streams, reading, spools) = match &spooling {
            Some(spooling) => spooling.open(source, options)?,
            None => {
                let (streams, worker) = Pipeline::open(source, options)?.start();
                (streams, Reading::by(Some(worker)), Vec::new())
            }
        };
        let repeats = spooling.as_ref().map(|spooling| spooling.repeats);
        let withholding =
            spooling.is_some_and(|spooling| spooling.may_be_complete_later).then(|| reading.clone());
        let mut spools = spools.into_iter();
        let transcripts = streams.into_iter().zip(0..).map(|(audio, number)| {
            let mut settings = settings.clone();
            settings.seed = settings.seed.wrapping_add(number);
            let pacer = Pacer::new(pace, settings.sample_rate);
            let spool = spools.next().zip(repeats);
            let audio = match &spool {
                Some((Opened { recovered, .. }, Repeatability::Repeatable)) => {
                    carried(audio, pacer.starting_at(recovered.accepted), withholding.clone())
                }
                _ if pace == Pace::Max => audio,
                _ => carried(audio, pacer, None),
            };
            let reading = reading.clone();
            let error = async move { reading.error().await };
            Transcript::start(service.clone(), settings, spool, audio, error)
        });
        Ok(transcripts.collect())
    }
}

/// The audio of each channel stream, its reading, and its spools.
type Opening = (Vec<mpsc::Receiver<Feed>>, Reading, Vec<Opened>);

/// A source that is transcribed through spools.
struct Spooling<'a> {
    file: SpoolFile,
    repeats: Repeatability,
    /// `true` if a source that can't be read to its end may be complete in a later process.
    may_be_complete_later: bool,
    service: &'a Endpoint,
    settings: &'a Settings,
}

impl Spooling<'_> {
    /// Opens the spools that an earlier process left and, unless they have all audio, the source.
    fn open(&self, source: Source, options: pipeline::Options) -> Result<Opening, StartError> {
        let source_name = source.name().to_owned();
        let raw = source.format().map_or_else(String::new, |format| format!(", raw {format}"));
        let described = format!("{source_name}, channels {}{raw}", options.channels);
        let session = Session { settings: self.settings, service: self.service, source: &described };
        let channel = |number| match options.channels {
            Channels::Split => Channel::Number(number),
            _ => Channel::All,
        };
        let most = if options.channels == Channels::Split { usize::MAX } else { 1 };
        let mut spools = self.file.open_existing((0..most).map(channel), &session)?;
        let left = !spools.is_empty();
        if left && spools.iter().all(|spool| spool.recovered.ended) {
            return Ok(without_source(spools));
        }
        let pipeline = match Pipeline::open(source, options) {
            // A live source that has ended meanwhile: the spools have all there was.
            Err(PipelineError::Decode(DecodeError::NoAudio { .. }))
                if left && self.repeats == Repeatability::Live =>
            {
                spools.iter_mut().try_for_each(|spool| spool.writer.end())?;
                return Ok(without_source(spools));
            }
            opened => opened?,
        };
        let channels = pipeline.streams();
        if spools.len() > channels {
            return Err(StartError::Channels { source_name, channels, spools: spools.len() });
        }
        for number in spools.len()..channels {
            spools.push(self.file.open(channel(number), &session)?);
        }
        let (streams, worker) = pipeline.start();
        Ok((streams, Reading::by(Some(worker)), spools))
    }
}

/// Returns the opening of spools that have all audio.
fn without_source(spools: Vec<Opened>) -> Opening {
    let streams = spools.iter().map(|_| mpsc::channel(1).1).collect();
    (streams, Reading::by(None), spools)
}

/// Returns the receiver of the same audio at the pace of `pacer`. If `withholding` is given, the channel
/// closes without [`Feed::End`] where the source could not be read to its end: a later process may read more
/// of it.
#[expect(clippy::disallowed_methods, reason = "ends with the channel, on either side")]
fn carried(
    mut audio: mpsc::Receiver<Feed>,
    pacer: Pacer,
    withholding: Option<Reading>,
) -> mpsc::Receiver<Feed> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        if !pacer.carry(&mut audio, &sender).await {
            return;
        }
        let is_complete = match withholding {
            Some(reading) => reading.is_complete().await,
            None => true,
        };
        if is_complete {
            // A session that has ended takes no more.
            let _ = sender.send(Feed::End).await;
        }
    });
    receiver
}

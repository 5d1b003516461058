//! Settings and the client shared by all recordings of a run.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::ledger::Form;
use super::spooling::{SpooledRecording, Spooling};
use crate::hints::Hints;
use crate::input::{self, Reading};
use crate::progress::Displays;
use crate::signals::Stop;
use crate::target::Target;
use voxline::Client;
use voxline::client::{Recorded, Transcription};
use voxline::pace::Pace;
use voxline::protocol::Latency;
use voxline::session::Overflow;

/// Sample rate of the sessions: that of the library, as recognisers expect it.
pub(super) const SAMPLE_RATE: u32 = 16_000;

/// Default capacity of the replay buffer of live audio, in seconds.
const LIVE_REPLAY_SECONDS: u64 = 60;

/// Default capacity of the replay buffer of a recording, in seconds: four minutes, as many as Whisper hears
/// together, and one for the audio on its way.
const RECORDING_REPLAY_SECONDS: u64 = 300;

/// Settings shared by all recordings of a run.
pub(super) struct Job {
    pub(super) client: Client,
    pub(super) session: SessionOptions,
    pub(super) target: Target,
    pub(super) reading: Reading,
    pub(super) speakers: Vec<String>,
    pub(super) spooling: Option<Spooling>,
    pub(super) ledger: Option<Form>,
    pub(super) displays: Displays,
    pub(super) interrupted: CancellationToken,
    /// The request that interrupted the run.
    pub(super) stopped: OnceLock<Stop>,
}

/// Options of the sessions.
pub(super) struct SessionOptions {
    pub(super) language: Option<String>,
    pub(super) hints: Hints,
    pub(super) partials: bool,
    pub(super) pace: Pace,
    pub(super) patience: Duration,
    /// Capacity of the replay buffer, if it is given.
    pub(super) replay_seconds: Option<u64>,
    pub(super) overflow: Overflow,
}

impl Job {
    /// Returns how urgent the text of a recording is. Nobody waits for each word of a recording that is
    /// complete and read at once.
    pub(super) fn latency(&self, input: &Path) -> Latency {
        let is_complete = self.session.pace == Pace::MAX && !input::is_live(input);
        if is_complete { Latency::Relaxed } else { Latency::Live }
    }

    /// Returns the transcription of a recording, kept on disk as `spooled` if there is a spool.
    pub(super) fn transcription(
        &self,
        input: &Path,
        spooled: Option<&SpooledRecording>,
    ) -> Transcription<Recorded> {
        let SessionOptions { language, hints, partials, pace, patience, replay_seconds, overflow } =
            &self.session;
        let latency = self.latency(input);
        let replay_seconds = replay_seconds.unwrap_or(match latency {
            Latency::Live => LIVE_REPLAY_SECONDS,
            Latency::Relaxed => RECORDING_REPLAY_SECONDS,
        });
        let (reading, path) = (self.reading, input.to_owned());
        let name = input::name(input).display().to_string();
        let transcription = self
            .client
            .transcribe_with(name, move || reading.source(&path))
            .channels(reading.channels)
            .partials(*partials)
            .pace(*pace)
            .patience(*patience)
            .settings(|settings| {
                settings.request.language.clone_from(language);
                hints.set(&mut settings.request);
                settings.request.latency = latency;
                settings.replay.frames = replay_seconds * u64::from(SAMPLE_RATE);
                settings.replay.overflow = *overflow;
            });
        match (&self.spooling, spooled) {
            (Some(spooling), Some(spooled)) => {
                let (spooling, spooled) = (spooling.clone(), spooled.clone());
                transcription.spool_by_channel(move |channel| spooling.file(&spooled, channel))
            }
            _ => transcription,
        }
    }
}

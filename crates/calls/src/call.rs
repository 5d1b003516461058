//! A call under way: what its peer tells, and the legs that are recognised.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::mpsc::error::SendError;

use super::event::{CallEvent, CallEventKind, EndReason, Leg, Loss, wall_time};
use super::leg::{CallLeg, LegContext, LegError};
use super::peers::{MediaEncoding, MediaFormat, Packet, PeerEvent, Start, Track};
use super::recording::{CallRecording, Recorder};
use super::unfinished::file_stem;
use voxline::audio::Encoding;
use voxline::error::chain;

/// Most events that may wait for the reader of events. What waits is told by the peer: keys and losses.
const WAITING_EVENTS: usize = 1_000;

/// Longest identifier of a peer that names its call, in bytes: each event repeats it.
const NAME_MAX: usize = 256;

/// Settings of one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallSettings {
    /// Language spoken, as a BCP 47 code; `None` lets the recogniser detect it.
    pub language: Option<String>,
    /// True if the track [`Inbound`](Track::Inbound) is the agent: the telephone system has called the
    /// operator's side.
    pub inbound_is_agent: bool,
}

impl CallSettings {
    /// Returns the leg that a track belongs to.
    #[must_use]
    pub fn leg(&self, track: Track) -> Leg {
        let is_agent = (track == Track::Inbound) == self.inbound_is_agent;
        if is_agent { Leg::Agent } else { Leg::Customer }
    }

    /// Returns these settings with those that a telephone system sends along: `language`, and `inbound`,
    /// which is `agent` or `customer`.
    #[must_use]
    pub fn with_metadata(&self, metadata: &BTreeMap<String, String>) -> CallSettings {
        CallSettings {
            language: metadata.get("language").or(self.language.as_ref()).cloned(),
            inbound_is_agent: metadata.get("inbound").map_or(self.inbound_is_agent, |leg| leg == "agent"),
        }
    }
}

/// A call that can't go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("audio came before the call started")]
    NotStarted,
    #[error("more than {WAITING_EVENTS} events of the call wait for their reader")]
    Flood,
}

/// A call under way.
pub(crate) struct Call {
    peer: &'static str,
    settings: CallSettings,
    context: LegContext,
    format: Option<MediaFormat>,
    /// Settings in the address of the peer.
    address: BTreeMap<String, String>,
    /// 20 ms of silence in the format that the peer takes, if that has changed.
    silence: Option<Bytes>,
    recorder: Option<Arc<Recorder>>,
    recording: Option<CallRecording>,
    /// The legs that had audio; `None` for one that can't be recognised.
    legs: BTreeMap<Leg, Option<CallLeg>>,
    /// Events that wait for their reader.
    waiting: VecDeque<CallEvent>,
    /// True once the peer has said that the call is over.
    pub(crate) has_ended: bool,
}

impl Call {
    /// Creates a call whose peer has not said anything yet.
    pub(crate) fn new(
        peer: &'static str,
        settings: CallSettings,
        address: BTreeMap<String, String>,
        context: LegContext,
        recorder: Option<Arc<Recorder>>,
    ) -> Call {
        Call {
            peer,
            settings,
            context,
            format: None,
            address,
            silence: None,
            recorder,
            recording: None,
            legs: BTreeMap::new(),
            waiting: VecDeque::new(),
            has_ended: false,
        }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.context.call
    }

    /// Returns whether the peer has said what the call is.
    pub(crate) fn has_started(&self) -> bool {
        self.format.is_some()
    }

    /// Takes an event that has come at `now`, since the beginning of the call.
    pub(crate) fn take(&mut self, event: PeerEvent, now: Duration) -> Result<(), CallError> {
        match event {
            PeerEvent::Started(start) => self.start(start),
            PeerEvent::Audio(packet) => self.audio(packet, now)?,
            PeerEvent::Format(format) => {
                self.format = Some(format);
                self.silence = silence(format);
            }
            PeerEvent::Dtmf { track, digit } => {
                let leg = self.settings.leg(track);
                self.emit(Some(leg), CallEventKind::Dtmf { at: now.as_secs_f64(), digit });
            }
            PeerEvent::Ended => self.has_ended = true,
            // Nothing is played yet, and metadata is told at the start.
            PeerEvent::Mark(_) | PeerEvent::Paused | PeerEvent::Resumed | PeerEvent::Metadata(_) => {}
        }
        if self.waiting.len() > WAITING_EVENTS { Err(CallError::Flood) } else { Ok(()) }
    }

    fn start(&mut self, start: Start) {
        let mut metadata = std::mem::take(&mut self.address);
        metadata.extend(start.metadata);
        self.settings = self.settings.with_metadata(&metadata);
        self.context.language.clone_from(&self.settings.language);
        let is_name = |call: &String| call.len() <= NAME_MAX && !call.contains(char::is_control);
        if let Some(call) = start.call.filter(is_name) {
            self.context.stem = file_stem(&call, self.context.epoch).into();
            self.context.call = call.into();
        }
        self.format = Some(start.receives);
        self.silence = start.sends.and_then(silence);
        let started = CallEventKind::Started {
            peer: self.peer,
            time: wall_time(self.context.epoch),
            language: self.context.language.clone(),
            metadata,
        };
        self.emit(None, started);
    }

    fn audio(&mut self, packet: Packet, now: Duration) -> Result<(), CallError> {
        let format = self.format.ok_or(CallError::NotStarted)?;
        let leg = self.settings.leg(packet.track);
        if let Some(recorder) = self.recorder.take() {
            self.recording = Some(recorder.begin(&self.context.stem, format.sample_rate));
        }
        let (context, recording) = (&self.context, &self.recording);
        let mut failed = None;
        let call_leg = self.legs.entry(leg).or_insert_with(|| {
            let leg = CallLeg::new(leg, format, context.clone(), recording.clone());
            leg.map_err(|error| failed = Some(error)).ok()
        });
        if let Some(call_leg) = call_leg {
            failed = call_leg.push(packet, now).err();
        }
        self.after(leg, failed);
        Ok(())
    }

    /// Returns 20 ms of silence in the format that the peer takes, if that has changed.
    pub(crate) fn new_silence(&mut self) -> Option<Bytes> {
        self.silence.take()
    }

    /// Does what is due at `now`: see [`deadline`](Call::deadline).
    pub(crate) fn poll(&mut self, now: Duration) {
        for leg in Leg::ALL {
            if let Some(Some(call_leg)) = self.legs.get_mut(&leg) {
                let failed = call_leg.poll(now).err();
                self.after(leg, failed);
            }
        }
    }

    /// Returns the next time at which [`poll`](Call::poll) has something to do.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.legs.values().flatten().filter_map(CallLeg::deadline).min()
    }

    /// Tells what a leg has lost, and gives up one that failed.
    fn after(&mut self, leg: Leg, failed: Option<LegError>) {
        if let Some(Some(call_leg)) = self.legs.get_mut(&leg) {
            for (start, end) in call_leg.take_losses() {
                self.emit(Some(leg), CallEventKind::Gap { start, end, lost: Loss::Network });
            }
        }
        if let Some(error) = failed {
            tracing::warn!(call = %self.name(), %leg, error = %chain(&error), "leg can't be recognised");
            if let Some(Some(given_up)) = self.legs.get_mut(&leg) {
                given_up.fail();
            }
            self.emit(Some(leg), CallEventKind::Failed { error: chain(&error).to_string() });
        }
    }

    fn emit(&mut self, leg: Option<Leg>, kind: CallEventKind) {
        let (call, stem) = (self.context.call.clone(), self.context.stem.clone());
        self.waiting.push_back(CallEvent { call, stem, leg, kind });
    }

    /// Returns whether events wait for their reader.
    pub(crate) fn has_events(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Returns a future of room for an event. It keeps its place in the queue for as long as it lives, before
    /// the results of the call's legs.
    pub(crate) fn room(&self) -> impl Future<Output = Result<OwnedPermit<CallEvent>, SendError<()>>> + use<> {
        self.context.events.clone().reserve_owned()
    }

    /// Hands the next event to its reader, which has room. Without a reader nothing is told.
    pub(crate) fn send_next(&mut self, room: Result<OwnedPermit<CallEvent>, SendError<()>>) {
        match room {
            Ok(room) => drop(self.waiting.pop_front().map(|event| room.send(event))),
            Err(_) => self.waiting.clear(),
        }
    }

    /// Ends the call after `length`: waits until all its audio is final, and tells the end.
    pub(crate) async fn end(mut self, reason: EndReason, error: Option<String>, length: Duration) {
        for leg in Leg::ALL {
            if let Some(Some(call_leg)) = self.legs.get_mut(&leg) {
                let failed = call_leg.end(length).err();
                self.after(leg, failed);
            }
        }
        let finishing = std::mem::take(&mut self.legs).into_iter().filter_map(|(leg, call_leg)| {
            let call_leg = call_leg?;
            Some(async move { call_leg.finish().await.map(|account| (leg, account)) })
        });
        let legs = join_all(finishing).await.into_iter().flatten().collect();
        let ended = match self.recording.take() {
            Some(recording) => recording.end().await,
            None => None,
        };
        let recording_lost = ended.as_ref().map(|ended| ended.lost).filter(|lost| *lost > 0.0);
        let recording = ended.map(|ended| ended.path.display().to_string());
        let seconds = length.as_secs_f64();
        self.emit(None, CallEventKind::Ended { seconds, reason, error, recording, recording_lost, legs });
        while self.has_events() {
            let room = self.room().await;
            self.send_next(room);
        }
    }
}

/// Returns 20 ms of silence; `None` for Opus, whose packets can't be made up.
fn silence(format: MediaFormat) -> Option<Bytes> {
    let MediaEncoding::Pcm(encoding) = format.encoding else { return None };
    let silent = match encoding {
        Encoding::MuLaw => 0xFF,
        Encoding::ALaw => 0xD5,
        _ => 0,
    };
    Some(vec![silent; format.sample_rate as usize / 50 * encoding.bytes()].into())
}

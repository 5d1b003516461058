//! Events of calls, as programs read them: JSON objects on lines.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::timeline::PacketCounts;
use voxline::session::Ledger;

/// A side of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Leg {
    /// The far end: who called, or was called.
    Customer,
    /// The near end: a person or a program that speaks for the operator.
    Agent,
}

impl Leg {
    /// Both legs.
    pub const ALL: [Leg; 2] = [Leg::Customer, Leg::Agent];

    /// Returns the name in events.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Leg::Customer => "customer",
            Leg::Agent => "agent",
        }
    }
}

impl fmt::Display for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An event of a call. As JSON it is one object: `event` names its kind, `call` the call, and `leg` the leg,
/// if it concerns one. Times are in seconds since the beginning of the call.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CallEvent {
    /// Name of the call: the peer's identifier, or one of our own.
    #[serde(serialize_with = "as_text")]
    pub call: Arc<str>,
    /// Name of the call's files, which no other call has.
    #[serde(skip)]
    pub stem: Arc<str>,
    /// Leg that the event concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leg: Option<Leg>,
    /// The event.
    #[serde(flatten)]
    pub kind: CallEventKind,
}

/// Kind of an event, with its data.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum CallEventKind {
    /// The call has begun.
    Started {
        /// Protocol of the peer.
        peer: &'static str,
        /// Wall-clock time (RFC 3339, UTC) of second zero.
        time: String,
        /// Language that was asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        language: Option<String>,
        /// Values that the operator's telephone system sent along.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        metadata: BTreeMap<String, String>,
    },
    /// Text of a leg that may change.
    Partial {
        /// Start of the text's audio.
        start: f64,
        /// End of the text's audio.
        end: f64,
        /// The text.
        text: String,
    },
    /// Text of a leg that does not change any more.
    Final {
        /// Number of the text in its leg, from 0. A call that a later process finishes repeats its texts
        /// under their numbers.
        index: u64,
        /// Start of the text's audio.
        start: f64,
        /// End of the text's audio.
        end: f64,
        /// Wall-clock time (RFC 3339, UTC) of the start.
        time: String,
        /// The text.
        text: String,
        /// Language of the text.
        #[serde(skip_serializing_if = "Option::is_none")]
        language: Option<String>,
        /// Confidence of the recogniser, 0 to 1.
        #[serde(skip_serializing_if = "Option::is_none")]
        confidence: Option<f32>,
        /// Words of the text.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        words: Vec<WordTime>,
    },
    /// Audio of a leg that was lost.
    Gap {
        /// Start of the gap.
        start: f64,
        /// End of the gap.
        end: f64,
        /// Place of the loss.
        lost: Loss,
    },
    /// A key was pressed.
    Dtmf {
        /// Time since the beginning of the call.
        at: f64,
        /// The key.
        digit: char,
    },
    /// A leg can't be recognised any more. The call goes on.
    Failed {
        /// The reason.
        error: String,
    },
    /// The call is over: nothing follows.
    Ended {
        /// Length of the call.
        seconds: f64,
        /// Reason for the end.
        reason: EndReason,
        /// Description of a peer's fault.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// Path of the recording, if there is one.
        #[serde(skip_serializing_if = "Option::is_none")]
        recording: Option<String>,
        /// Audio that the recording leaves out, in seconds, if the disk was too slow.
        #[serde(skip_serializing_if = "Option::is_none")]
        recording_lost: Option<f64>,
        /// Account of the legs that had audio.
        legs: BTreeMap<Leg, LegAccount>,
    },
}

/// A word and its time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WordTime {
    /// Start of the word.
    pub start: f64,
    /// End of the word.
    pub end: f64,
    /// The word, including adjacent punctuation.
    pub text: String,
    /// Confidence of the recogniser in the word, 0 to 1.
    pub confidence: f32,
}

/// Place at which audio was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Loss {
    /// On the way from the telephone system: the audio was replaced, and recognised as such.
    Network,
    /// In the session, which could not be served for too long: the audio was not recognised.
    Session,
}

/// Reason for the end of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EndReason {
    /// The peer said so.
    HungUp,
    /// The connection of the peer ended without a word.
    ConnectionLost,
    /// The peer broke its protocol, or sent audio that can't be decoded.
    PeerFault,
    /// The program stops.
    Stopped,
    /// The program was killed during the call, and a later one has finished its text.
    Interrupted,
}

/// The account of a leg. `accepted` = `recognised` + `gaps` + `unfinished`; all are in seconds of audio.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LegAccount {
    /// Audio that was taken, with that made up for lost packets and for silence that was not sent.
    pub accepted: f64,
    /// Audio with a final result.
    pub recognised: f64,
    /// Audio that the session has lost.
    pub gaps: f64,
    /// Audio without a result.
    pub unfinished: f64,
    /// Packets of the peer.
    pub packets: PacketCounts,
}

impl LegAccount {
    pub(crate) fn new(ledger: Ledger, sample_rate: u32, packets: PacketCounts) -> LegAccount {
        let seconds = |frames: u64| frames as f64 / f64::from(sample_rate);
        LegAccount {
            accepted: seconds(ledger.accepted),
            recognised: seconds(ledger.recognised),
            gaps: seconds(ledger.gaps),
            unfinished: seconds(ledger.unfinished),
            packets,
        }
    }
}

fn as_text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// Returns a wall-clock time as RFC 3339 with milliseconds.
pub(crate) fn wall_time(since_epoch: Duration) -> String {
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + since_epoch).to_string()
}

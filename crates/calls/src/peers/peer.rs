//! The list of peers: the one place that names all codecs.

use std::collections::BTreeMap;

use super::audiosocket::AudioSocket;
use super::chan_websocket::{self, ChanWebSocket};
use super::fork::{Channels, Flavor, Fork, ForkOptions};
use super::twilio::{Provider, Replies, Twilio};
use super::vonage::Vonage;
use super::{Codec, PeerError};

/// A kind of telephone system, by the protocol that it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// Asterisk's AudioSocket, by TCP.
    AudioSocket,
    /// Asterisk's channel driver for WebSockets.
    ChanWebSocket,
    /// Twilio or a relative.
    Twilio(Provider),
    /// Vonage.
    Vonage,
    /// A FreeSWITCH module, or jambonz.
    Fork(Flavor),
}

/// Peers that connect by WebSocket, by the name in their address.
const BY_WEBSOCKET: [(&str, Peer); 10] = [
    ("twilio", Peer::Twilio(Provider::Twilio)),
    ("telnyx", Peer::Twilio(Provider::Telnyx)),
    ("signalwire", Peer::Twilio(Provider::SignalWire)),
    ("plivo", Peer::Twilio(Provider::Plivo)),
    ("exotel", Peer::Twilio(Provider::Exotel)),
    ("vonage", Peer::Vonage),
    ("chan-websocket", Peer::ChanWebSocket),
    ("fork", Peer::Fork(Flavor::AudioFork)),
    ("audio-stream", Peer::Fork(Flavor::AudioStream)),
    ("jambonz", Peer::Fork(Flavor::Jambonz)),
];

/// Rate of forked audio unless the address or the metadata says another, in hertz.
const FORK_RATE: u32 = 8_000;

impl Peer {
    /// Returns the name, as in events and addresses.
    #[must_use]
    pub fn name(self) -> &'static str {
        let named = BY_WEBSOCKET.iter().find(|(_, peer)| *peer == self);
        named.map_or("audiosocket", |(name, _)| name)
    }

    /// Returns the peer that connects by WebSocket to the address with this name.
    #[must_use]
    pub fn by_websocket(name: &str) -> Option<Peer> {
        BY_WEBSOCKET.iter().find(|(known, _)| *known == name).map(|(_, peer)| *peer)
    }

    /// Returns the names of [`by_websocket`](Peer::by_websocket), for messages.
    pub(crate) fn websocket_names() -> String {
        BY_WEBSOCKET.map(|(name, _)| name).join(", ")
    }

    /// Returns the subprotocol that is spoken, if it is one of those that the peer has offered.
    pub(crate) fn subprotocol<'a>(self, mut offered: impl Iterator<Item = &'a str>) -> Option<&'static str> {
        let known = match self {
            Peer::ChanWebSocket => Some(chan_websocket::SUBPROTOCOL),
            Peer::Fork(flavor) => flavor.subprotocol(),
            Peer::AudioSocket | Peer::Twilio(_) | Peer::Vonage => None,
        };
        known.filter(|known| offered.any(|offered| offered == *known))
    }

    /// Returns the codec of a new connection, whose address has these settings: `rate` and `channels` of
    /// audio that nothing else describes.
    ///
    /// # Errors
    /// Returns [`PeerError`] if a setting makes no sense.
    pub fn codec(self, settings: &BTreeMap<String, String>) -> Result<Box<dyn Codec>, PeerError> {
        Ok(match self {
            Peer::AudioSocket => Box::new(AudioSocket::new()),
            Peer::ChanWebSocket => Box::new(ChanWebSocket::new()),
            Peer::Twilio(provider) => Box::new(Twilio::new(provider, Replies::None)),
            Peer::Vonage => Box::new(Vonage::new()),
            Peer::Fork(flavor) => {
                let wrong = |expected: &str| PeerError::Message {
                    message: "address",
                    reason: format!("expected {expected}"),
                };
                let sample_rate = match settings.get("rate") {
                    Some(rate) => rate.parse().map_err(|_| wrong("a rate in Hz, such as rate=8000"))?,
                    None => FORK_RATE,
                };
                let channels = match settings.get("channels").map(String::as_str) {
                    None | Some("1") => Channels::One,
                    Some("2") => Channels::Two,
                    Some(_) => return Err(wrong("channels=1 or channels=2")),
                };
                Box::new(Fork::new(ForkOptions { flavor, sample_rate, channels, replies: None }))
            }
        })
    }
}
